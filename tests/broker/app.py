"""A plain Celery app on the transport, set up by the environment; its tasks record in Redis what happens to them."""

import gc
import os
import time
import weakref
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

import redis
from celery import Celery, Task
from celery.exceptions import Reject

from taskyard.broker.protocol.header import BURY_TASK, DEAD_LETTER_QUEUE
from taskyard.broker.transport.options import transport_settings
from taskyard.broker.transport.result_backend import use_our_results
from taskyard.broker.worker.redelivery import Redeliver

RECORDS = "records"  # list on the recorder: what ran, in order


@dataclass(frozen=True)
class Settings:
    """What `transport_settings` reads; tests fill it from the environment."""

    redis_url: str
    taskyard_transport: Literal["taskyard", "redis"] = "taskyard"
    worker_queue_stalled_interval: timedelta = timedelta(seconds=5)
    worker_max_stalls: int = 50
    taskyard_key_prefix: str = "taskyard:"
    audit_enabled: bool = True


def settings_from_environment() -> Settings:
    """Read TEST_BROKER_URL, TRANSPORT, LEASE_MS, MAX_STALLS, KEY_PREFIX and EVENTS."""
    env = os.environ
    return Settings(
        redis_url=env.get("TEST_BROKER_URL", "redis://127.0.0.1:1/0"),
        taskyard_transport=cast("Literal['taskyard', 'redis']", env.get("TRANSPORT", "taskyard")),
        worker_queue_stalled_interval=timedelta(milliseconds=int(env.get("LEASE_MS", "5000"))),
        worker_max_stalls=int(env.get("MAX_STALLS", "50")),
        taskyard_key_prefix=env.get("KEY_PREFIX", "taskyard:"),
        audit_enabled=env.get("EVENTS", "1") == "1",
    )


def make_app(settings: Settings, **more: Any) -> Celery:
    """An app with the platform's delivery settings."""
    app = Celery("broker-tests", task_cls="taskyard.broker.worker.redelivery:RetryInPlace", set_as_current=False)
    app.conf.update(transport_settings(settings))
    use_our_results(app)
    app.conf.update(
        task_acks_late=True,
        worker_prefetch_multiplier=int(os.environ.get("PREFETCH", "1")),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        result_expires=60,
        task_ignore_result=os.environ.get("IGNORE_RESULTS", "1") == "1",
        worker_hijack_root_logger=False,
    )
    if "SOFT_SHUTDOWN" in os.environ:
        app.conf.update(worker_soft_shutdown_timeout=float(os.environ["SOFT_SHUTDOWN"]))
        app.conf.update(worker_enable_soft_shutdown_on_idle=True)
    if "OUR_SIGNALS" in os.environ:
        app.steps["worker"].add("taskyard.broker.worker.signal_handlers:SoftSignals")
    app.conf.update(more)
    return app


app = make_app(settings_from_environment())
records = redis.Redis.from_url(os.environ.get("RECORDS_URL", "redis://127.0.0.1:1/0"), decode_responses=True)


@app.task(name="nothing")
def nothing(number: int = 0) -> int:
    """Do nothing."""
    return number


@app.task(name="record", bind=True)
def record(self: Task[..., Any], label: str = "", sleep: float = 0) -> None:
    """Record that it started, and that it ended; `sleep` in seconds."""
    now = time.time()
    records.rpush(RECORDS, f"start {self.request.id} {label} {now:.6f}")
    if sleep:
        time.sleep(sleep)
    records.rpush(RECORDS, f"end {self.request.id} {label} {time.time():.6f}")


@app.task(name="hold", bind=True)
def hold(self: Task[..., Any], label: str = "") -> None:
    """Record the start, wait until the test sets the key `release`, record the end."""
    records.rpush(RECORDS, f"start {self.request.id} {label} {time.time():.6f}")
    while not records.exists("release"):
        time.sleep(0.05)
    records.rpush(RECORDS, f"end {self.request.id} {label} {time.time():.6f}")


@app.task(name="retry", bind=True, max_retries=3)
def retry(self: Task[..., Any], countdown: float = 0.1, times: int = 2) -> int:
    """Ask Celery for a retry, `times` times."""
    records.rpush(RECORDS, f"try {self.request.id} {self.request.retries} {time.time():.6f}")
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@app.task(name="redeliver", bind=True)
def redeliver(self: Task[..., Any], delay: float = 0.1, times: int = 2) -> None:
    """Ask for the same message again, `times` times in all its executions."""
    _come_back(self, delay, times, uses_attempt=True)


@app.task(name="snooze", bind=True)
def snooze(self: Task[..., Any], delay: float = 0.1, times: int = 2) -> None:
    """As `redeliver`, without using an attempt."""
    _come_back(self, delay, times, uses_attempt=False)


def _come_back(self: Task[..., Any], delay: float, times: int, *, uses_attempt: bool) -> None:
    seen = records.incr(f"seen:{self.request.id}")
    attempt = getattr(self.request, "taskyard", {}).get("attempt", 1)
    records.rpush(RECORDS, f"try {self.request.id} {attempt} {time.time():.6f}")
    if int(seen) <= times:
        raise Redeliver(delay, ValueError("not yet"), uses_attempt=uses_attempt)


@app.task(name="fail")
def fail(text: str = "no") -> None:
    """Fail."""
    raise ValueError(text)


@app.task(name="bury", bind=True, Request="taskyard.broker.worker.request:PlatformRequest")
def bury(self: Task[..., Any], text: str = "no") -> None:
    """Fail as a task of the platform: the failure is a dead letter."""
    raise ValueError(f"{text} {self.request.id}")


@app.task(name="die", bind=True)
def die(self: Task[..., Any]) -> None:
    """Kill the process that runs it."""
    records.rpush(RECORDS, f"start {self.request.id} die {time.time():.6f}")
    os.kill(os.getpid(), 9)


@app.task(name="reject_again", bind=True)
def reject_again(self: Task[..., Any]) -> None:
    """Refuse the message whenever it comes."""
    info = self.request.delivery_info or {}
    records.rpush(RECORDS, f"try {self.request.id} {info.get('redelivered')}")
    raise Reject("not now", requeue=True)


@app.task(name="leave", Request="taskyard.broker.worker.request:PlatformRequest")
def leave() -> None:
    """Leave the interpreter, as a library that calls `sys.exit` does."""
    raise SystemExit(3)


@app.task(name="slow", time_limit=1)
def slow() -> None:
    """Exceed a hard time limit."""
    time.sleep(30)


@app.task(name="litter")
def litter(number: int) -> None:
    """Leave so many cycles behind; record how many are still there, and what the collector never looks at."""

    class Cycle:
        def __init__(self) -> None:
            self.me = self

    traces = [weakref.ref(Cycle()) for _ in range(number)]
    kept = sum(trace() is not None for trace in traces)
    records.rpush(RECORDS, f"litter {kept} {gc.get_freeze_count()}")


@app.task(name=BURY_TASK, queue=DEAD_LETTER_QUEUE, shared=False)  # else the platform's app, in one process, has two
def store_dead_letter(**letter: Any) -> None:
    """Record a dead letter."""
    records.rpush("letters", f"{letter['run_id']} {letter['reason']} {letter['error']} {letter['body']}")


def started(server_records: redis.Redis) -> list[str]:
    """The ids of all executions that started, in order."""
    lines = cast("list[str]", server_records.lrange(RECORDS, 0, -1))
    return [line.split()[1] for line in lines if line.startswith(("start ", "try "))]
