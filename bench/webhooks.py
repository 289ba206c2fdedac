"""
Webhooks: deliveries per second with all rows written, and the time from `emit` to receipt.

Real workers, an embedded Valkey that syncs its log each second, SQLite and a PostgreSQL that waits for the disk at each
commit, and ten receivers in a process of their own that answer 200 at once. Broker, database, workers, receivers and
the app share the machine.
"""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import quantiles
from threading import Event
from time import monotonic

from bench.databases import durable_database
from bench.machine import describe
from bench.receivers import Receivers, receivers
from tests.databases import Kind
from tests.nodes.nodes import start_broker
from tests.nodes.processes import ProcessClient
from tests.system.webhook_platform import WebhookPlatform
from tests.waiting import wait_for

ENDPOINTS = 10
PER_SECOND = 100
APP_THREADS = 4  # that emit
SLOTS = 40  # in each worker process; deliveries wait for the network most of the time
LIMIT = 300  # seconds
SETTINGS = {
    "LOG_LEVEL": "warning",
    "WEBHOOK_TOTAL_TIMEOUT": "15",
    "WEBHOOK_MAX_CONCURRENCY": "50",
    "WORKER_QUEUE_STALLED_INTERVAL": "30000",
}


def main(words: list[str] | None = None) -> None:
    """Measure both databases and print a table."""
    parser = argparse.ArgumentParser(prog="bench.webhooks", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=6000, help="queued before the workers start")
    parser.add_argument("--seconds", type=int, default=20, help="of 100 events a second")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args(words or [])
    print(f"{options.workers} workers with {SLOTS} slots, {ENDPOINTS} endpoints\n")
    print("| database | deliveries/s, all rows written | emit to receipt at 100/s: p50 | p99 |")
    print("|---|---:|---:|---:|")
    for kind in ("sqlite", "postgresql"):
        rate, (median, slowest) = measure(kind, options.deliveries, options.seconds, options.workers)
        print(f"| {kind} | {rate:.0f} | {median * 1000:.0f} ms | {slowest * 1000:.0f} ms |", flush=True)


def measure(kind: Kind, deliveries: int, seconds: int, workers: int) -> tuple[float, tuple[float, float]]:
    """Return deliveries per second, and the p50 and p99 in seconds."""
    with receivers(ENDPOINTS) as outside, start_platform(kind) as platform:
        for number, url in enumerate(outside.urls):
            platform.webhook_rows.endpoint(("all.things", f"one.n{number}"), url)
        platform.emit_together(deliveries // ENDPOINTS, "all.things")
        for number in range(workers):
            platform.worker(f"worker-{number}", slots=SLOTS)
        wait_for(lambda: outside.count > 0, LIMIT, "the first arrives")
        started = monotonic()
        wait_for(lambda: outside.count >= deliveries, LIMIT, "all arrive")
        wait_for(lambda: platform.states() == {"delivered": deliveries}, LIMIT, "all are recorded")
        rate = deliveries / (monotonic() - started)
        outside.take()
        return rate, latencies(platform, outside, seconds)


def latencies(platform: WebhookPlatform, outside: Receivers, seconds: int) -> tuple[float, float]:
    """Emit events at an even pace, each for one endpoint, from the threads of one app."""
    pacer, started, turn = Event(), monotonic(), count()

    def serve_requests() -> None:
        while (number := next(turn)) < seconds * PER_SECOND:
            pacer.wait(max(0.0, started + number / PER_SECOND - monotonic()))
            platform.emit(event_type=f"one.n{number % ENDPOINTS}")

    with ThreadPoolExecutor(APP_THREADS) as app:
        for thread in [app.submit(serve_requests) for _ in range(APP_THREADS)]:
            thread.result()
    took = monotonic() - started
    if took > seconds * 1.05:
        print(f"(the app managed {seconds * PER_SECOND / took:.0f} events a second)")
    wait_for(lambda: outside.count >= seconds * PER_SECOND, LIMIT, "all arrive")
    cuts = quantiles(outside.take(), n=100)
    return cuts[49], cuts[98]


@contextmanager
def start_platform(kind: Kind, **environ: str) -> Iterator[WebhookPlatform]:
    """Broker and database of our own, gone at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskyard-bench-")))
        client = ProcessClient()
        broker = start_broker(client, appendfsync="everysec")
        stack.callback(broker.teardown)
        database = stack.enter_context(durable_database(kind, folder))
        yield stack.enter_context(WebhookPlatform(database, broker, client, folder, **SETTINGS | environ))


if __name__ == "__main__":
    import sys

    print(describe())
    main(sys.argv[1:])
