"""The work as Celery tasks; BENCH_TRANSPORT chooses the transport. Run by workers and producers of the comparison."""

import os
import time
from typing import Any

import redis
from celery import Celery

URL = os.environ["BENCH_URL"]
TRANSPORT = os.environ["BENCH_TRANSPORT"]  # taskyard, stock or plus
LEASE = 10  # seconds


def _settings() -> dict[str, Any]:
    if TRANSPORT == "taskyard":
        options = {"lease_ms": LEASE * 1000, "max_stalls": 3, "writes_events": True, "max_connections": 200}
        return {
            "broker_transport": "taskyard.broker.transport.transport:Transport",
            "worker_consumer": "taskyard.broker.worker.consumer:Consumer",
            "broker_transport_options": options,
        }
    options = {"visibility_timeout": LEASE, "max_connections": 200}
    if TRANSPORT == "stock":
        return {"broker_transport_options": options | {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}}
    return {"broker_transport": "celery_redis_plus.transport:Transport", "broker_transport_options": options}


app = Celery("bench", broker=URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="bench",
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    **_settings(),
)
OPTIONS: dict[str, Any] = {}
if TRANSPORT == "taskyard":
    from taskyard.broker.worker.request import Request

    OPTIONS["Request"] = Request


@app.task(name="noop", **OPTIONS)
def noop() -> None:
    """Do nothing."""


@app.task(name="nap", **OPTIONS)
def nap() -> None:
    """Wait 50 ms, as for a network."""
    time.sleep(0.05)  # is the work


@app.task(name="stamp", **OPTIONS)
def stamp(sent: float) -> None:
    """Note how long it took from the call to the start, in milliseconds."""
    late = (time.time() - sent) * 1000
    _client().rpush("bench:latency", late)


@app.task(name="hold", **OPTIONS)
def hold(seconds: float) -> None:
    """Note the start, then hold on."""
    _client().rpush("bench:starts", time.time())
    time.sleep(seconds)  # is the work


_clients: dict[int, redis.Redis] = {}


def _client() -> redis.Redis:
    return _clients.setdefault(os.getpid(), redis.Redis.from_url(URL.replace("/0", "/1")))
