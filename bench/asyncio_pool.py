"""
The asyncio pool: 2,000 handlers that wait 50 ms at 500 slots, beside the arithmetic limit and the pool of threads.

One worker process each, no audit, an embedded Valkey; broker, worker and this program share the machine. The limit is
handlers x wait / slots; what a worker needs beyond it is the processor time of each task, which is printed too.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import psutil
import redis

from bench.machine import describe
from bench.soak_tasks import Work, wait
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.launch.programs import ASYNCIO_POOL
from taskyard.settings.queues import WEBHOOKS
from taskyard.tasks.sending import enqueue_many
from tests.app_broker import use_broker
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

LIMIT = 300  # seconds
WAIT = 0.05  # seconds that a handler waits: see bench.soak_tasks
POOLS = {"asyncio": "custom", "threads": "threads"}


def main(words: list[str] | None = None) -> None:
    """Run each pool in turn and print a table."""
    parser = argparse.ArgumentParser(prog="bench.asyncio_pool", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--slots", type=int, default=500)
    options = parser.parse_args(words or [])
    limit = options.tasks * WAIT / options.slots
    print(f"{options.tasks:,} handlers of {WAIT * 1000:.0f} ms, {options.slots} slots: at least {limit:.2f} s\n")
    print("| pool | took | of the limit | processor time per task | memory |\n|---|---:|---:|---:|---:|")
    for name, pool in POOLS.items():
        took, processor, memory = measure(pool, options.tasks, options.slots)
        each = processor / options.tasks * 1000
        print(f"| {name} | {took:.2f} s | {limit / took:.0%} | {each:.2f} ms | {memory:.0f} MiB |", flush=True)


def measure(pool: str, tasks: int, slots: int) -> tuple[float, float, float]:
    """Return the seconds from the first start to the last end, the worker's processor time, and its memory in MiB."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskyard-bench-")))
        valkey = stack.enter_context(Server(folder / "valkey", appendfsync="everysec"))
        env = {"REDIS_URL": valkey.url, "AUDIT_ENABLED": "false", "LOG_LEVEL": "warning", "TASKYARD_DATA": str(folder)}
        env |= {"CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL}
        arguments = ("-P", pool, "-c", str(slots), "-Q", WEBHOOKS.name, "-l", "WARNING", *MINIMAL)
        worker = stack.enter_context(
            Worker("bench.soak_tasks", folder, arguments=arguments, env=env).start(wait_ready=False)
        )
        use_broker(valkey.url)
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        control = QueueControl(client)
        wait_for(lambda: control.counts(WEBHOOKS.name).consumers, LIMIT, "the worker listens")
        enqueue_many(wait, [Work(number=0)] * slots)  # threads start, caches fill
        wait_for(lambda: is_empty(control), LIMIT, "it is warm")
        control.pause(WEBHOOKS.name)
        enqueue_many(wait, [Work(number=0)] * tasks)
        process = psutil.Process(worker.pid)
        used = sum(process.cpu_times()[:2])
        control.resume(WEBHOOKS.name)
        began = monotonic()
        wait_for(lambda: is_empty(control), LIMIT, "all have ended")
        took = monotonic() - began
        return took, sum(process.cpu_times()[:2]) - used, process.memory_info().rss / 2**20


def is_empty(control: QueueControl) -> bool:
    """Whether nothing waits or runs."""
    counts = control.counts(WEBHOOKS.name)
    return counts.waiting + counts.active == 0


if __name__ == "__main__":
    print(describe())
    main(sys.argv[1:])
