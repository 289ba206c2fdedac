"""
Soak: minutes of mixed load at 60 % of what the machine can do, and the memory of each process over that time.

Workers with the pools processes, threads and asyncio, beat, the audit in PostgreSQL, and an embedded Valkey. The
capacity is measured first, in the same run. A slope is that of the least-squares line through the resident memory of a
process (with its pool's processes), one look a second, after a warm-up of a third of the time.
"""

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic

import psutil
import redis
from sqlalchemy import text

from bench.databases import durable_database
from bench.machine import describe
from bench.soak_tasks import TASKS, Work
from config.queues import BACKUPS
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.launch.programs import ASYNCIO_POOL
from taskyard.settings.queues import DEFAULT, WEBHOOKS
from taskyard.tasks.sending import enqueue_many
from tests.app_broker import use_broker
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import ROOT, Worker

APP = "bench.soak_tasks"
LIMIT = 600  # seconds
SHARE = 0.6  # of the capacity
BATCH = 1500  # tasks of each kind, to measure the capacity
WARM_UP = 1 / 3  # of the time
TEXT = "x" * 200
QUEUES = (BACKUPS.name, DEFAULT.name, WEBHOOKS.name)
WRITER = "taskyard.history.writer.helper_process"  # the audit's writer, a child of one of the workers while much waits
BAD = ("error", "critical")  # levels of lines
POOLS = {
    "processes": ("-P", "processes", "-c", "2", "-Q", "backup-verification"),
    "threads": (
        *("-P", "threads", "-c", "10"),
        *("-Q", "celery,dead-letter,maintenance,reconciliation,market-resolution"),
    ),
    "asyncio": ("-P", "custom", "-c", "100", "-Q", "webhook-deliveries,webhook-slow"),
}
SETTINGS = {
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "json",
    "WEBHOOK_SECRET_KEYS": "bench:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",  # protects nothing
    "CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL,
}


@dataclass(frozen=True, slots=True)
class Site:
    """The processes under load, and where they write."""

    database: Database
    control: QueueControl
    folder: Path  # of the logs
    pids: Mapping[str, int]  # of the main processes, by name

    def left(self) -> int:
        """Tasks of ours that have not ended."""
        counts = [self.control.counts(queue) for queue in QUEUES]
        return sum(each.waiting + each.active + each.delayed for each in counts)

    def memory(self) -> dict[str, float]:
        """KiB of each process with its pool's processes; those that fork share some, which is then counted twice."""
        sizes = dict.fromkeys((*self.pids, WRITER), 0.0)
        for name, pid in self.pids.items():
            main = psutil.Process(pid)
            for each in (main, *main.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # the writer ends when nothing comes
                    sizes[WRITER if WRITER in each.cmdline() else name] += each.memory_info().rss / 1024
        return sizes


def main(words: list[str] | None = None) -> None:
    """Measure the capacity, load, and print two tables."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of load")
    options = parser.parse_args(words or [])
    with platform() as site:
        capacity = drain(site)
        rate = SHARE * capacity
        print(f"capacity {capacity:.0f} tasks/s (one third of each kind); load {rate:.0f} tasks/s\n", flush=True)
        seen = load(site, rate, options.minutes * 60)
        wait_for(lambda: site.left() == 0, LIMIT, "all have ended")
        report(seen)
        report_errors(site)


def drain(site: Site) -> float:
    """Return how many tasks end per second when all queues are full."""
    for task in TASKS.values():
        enqueue_many(task, [Work(number=0, text=TEXT)] * BATCH)
    began, at_begin = monotonic(), site.left()
    wait_for(lambda: site.left() == 0, LIMIT, "the capacity is measured")
    return at_begin / (monotonic() - began)


def load(site: Site, rate: float, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Enqueue at an even pace, each kind in turn; return the looks at each process: seconds and KiB."""
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    pacer, began, sent, most = Event(), monotonic(), 0, 0
    for look in range(1, int(seconds) + 1):
        while sent < rate * look:
            pacer.wait(max(0.0, began + sent / rate - monotonic()))
            for task in TASKS.values():
                task.delay(number=sent, text=TEXT)
            sent += len(TASKS)
        most = max(most, site.left())
        for name, size in site.memory().items():
            seen[name].append((monotonic() - began, size))
    took = monotonic() - began
    print(f"{sent:,} tasks in {took:.0f} s ({sent / took:.0f}/s), at most {most} of them not yet done\n", flush=True)
    return seen


def report(seen: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Print the memory of each process after the warm-up, and how fast it grew."""
    print("| process | after the warm-up | at the end | most | slope |\n|---|---:|---:|---:|---:|")
    for name, looks in seen.items():
        times, sizes = zip(*looks[int(len(looks) * WARM_UP) :], strict=True)
        slope = linear_regression(times, sizes).slope * 60
        first, last, most = sizes[0] / 1024, sizes[-1] / 1024, max(sizes) / 1024
        print(f"| {name} | {first:.1f} MiB | {last:.1f} MiB | {most:.1f} MiB | {slope:+.0f} KiB/min |")


def report_errors(site: Site) -> None:
    """Print how the runs ended, and how many lines about errors the processes wrote."""
    count = "SELECT state, count(*) FROM taskyard_runs GROUP BY state ORDER BY state"

    def states() -> dict[str, int]:
        with site.database.session() as session:
            return {str(state): int(number) for state, number in session.execute(text(count)).all()}

    wait_for(lambda: not {"queued", "running"} & set(states()), LIMIT, "the audit has caught up", lambda: str(states()))
    lines = [line for log in site.folder.glob("*.log") for line in log.read_text(errors="replace").splitlines()]
    errors = [line for line in lines if "Traceback" in line or any(f'"level": "{each}"' in line for each in BAD)]
    print(f"\nruns: {states()}; lines about errors: {len(errors)}")
    print("\n".join(errors[:5]))


@contextmanager
def platform() -> Iterator[Site]:
    """Broker, database, workers and beat of our own, gone at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="taskyard-soak-")))
        valkey = stack.enter_context(Server(folder / "valkey", appendfsync="everysec"))
        database = stack.enter_context(durable_database("postgresql", folder))
        env = {**SETTINGS, "REDIS_URL": valkey.url, "DATABASE_URL": database.url, "TASKYARD_DATA": str(folder)}
        logs = folder / "logs"
        workers = {
            name: stack.enter_context(
                Worker(APP, logs, name=name, arguments=(*words, "-l", "WARNING"), env=env).start(wait_ready=False)
            )
            for name, words in POOLS.items()
        }
        beat = stack.enter_context(started_beat(logs, env))
        use_broker(valkey.url)
        control = QueueControl(stack.enter_context(redis.Redis.from_url(valkey.url)))
        wait_for(lambda: all(control.counts(queue).consumers for queue in QUEUES), LIMIT, "all queues are served")
        pids = {f"worker, {name}": worker.pid for name, worker in workers.items()}
        yield Site(database, control, logs, {**pids, "beat": beat.pid, "valkey": valkey.pid})


@contextmanager
def started_beat(folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Beat with the platform's timetable, ended with SIGTERM."""
    command = [sys.executable, "-m", "celery", "-A", APP, "--quiet", "beat", "--pidfile=", "-l", "WARNING"]
    with (folder / "beat.log").open("wb") as log:
        beat = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **env}
        )
    try:
        yield beat
    finally:
        beat.terminate()
        beat.wait(LIMIT)


if __name__ == "__main__":
    print(describe())
    main(sys.argv[1:])
