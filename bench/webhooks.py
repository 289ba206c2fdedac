"""
Webhooks: deliveries per second with all rows written, and the time from `emit` to receipt.

Real workers, an embedded Valkey that syncs its log each second, SQLite and a PostgreSQL that waits for the disk at each
commit, and ten receivers that answer 200 at once. Broker, database, workers, receivers and the app share the machine.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from threading import Event
from time import monotonic

from bench.machine import describe
from config.database import open_engine
from migrations.schema import upgrade
from tests.databases import Database, Kind, Postgres
from tests.servers import Server
from tests.system.site import Site
from tests.waiting import wait_for
from tests.webhooks.receivers import Captured, Receiver

ENDPOINTS = 10
PER_SECOND = 100
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
    with platform(kind) as site, ExitStack() as stack:
        receivers = [stack.enter_context(Receiver()) for _ in range(ENDPOINTS)]
        for number, receiver in enumerate(receivers):
            site.stage.endpoint(("all.things", f"one.n{number}"), receiver.url)
        site.emit_together(deliveries // ENDPOINTS, "all.things")
        for number in range(workers):
            site.worker(f"worker-{number}", slots=SLOTS)
        wait_for(lambda: any(receiver.requests for receiver in receivers), LIMIT, "the first arrives")
        started = monotonic()
        wait_for(lambda: site.states() == {"delivered": deliveries}, LIMIT, "all are recorded")
        rate = deliveries / (monotonic() - started)
        for receiver in receivers:
            receiver.clear()
        return rate, latencies(site, receivers, seconds)


def latencies(site: Site, receivers: list[Receiver], seconds: int) -> tuple[float, float]:
    """Emit events at an even pace, each for one endpoint."""
    pacer, started = Event(), monotonic()
    for number in range(seconds * PER_SECOND):
        pacer.wait(max(0.0, started + number / PER_SECOND - monotonic()))
        site.emit(event_type=f"one.n{number % ENDPOINTS}")
    took = monotonic() - started
    arrived = [
        request for receiver in receivers for request in receiver.wait_for(seconds * PER_SECOND // ENDPOINTS, LIMIT)
    ]
    if took > seconds * 1.05:
        print(f"(the app managed {seconds * PER_SECOND / took:.0f} events a second)")
    cuts = quantiles(map(latency, arrived), n=100)
    return cuts[49], cuts[98]


def latency(request: Captured) -> float:
    """Seconds from the timestamp that `emit` wrote into the body to the arrival."""
    text = request.body.split(b'"timestamp":"', 1)[1].split(b'"', 1)[0].decode()
    return (request.received_at - datetime.fromisoformat(text)).total_seconds()


@contextmanager
def platform(kind: Kind) -> Iterator[Site]:
    """Broker and database of our own, gone at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskyard-bench-")))
        valkey = stack.enter_context(Server(folder / "valkey"))
        url = f"sqlite:///{folder / 'bench.db'}"
        if kind == "postgresql":
            postgres = Postgres(durable=True).start()
            stack.callback(postgres.remove)
            url = postgres.url.render_as_string(hide_password=False)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        upgrade(engine)
        yield stack.enter_context(Site(Database(kind, url, engine), valkey, folder, **SETTINGS))


if __name__ == "__main__":
    import sys

    print(describe())
    main(sys.argv[1:])
