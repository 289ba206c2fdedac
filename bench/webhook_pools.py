"""
The same webhook deliveries through one worker with the pool of threads and one with the asyncio pool.

Ten receivers in a process of their own answer after 100 ms (`--thinking`); all rows are written, with the audit. The
slots are chosen so that both workers have about the same resident memory at their peak, which is printed. Broker,
database, worker and receivers share the machine.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import psutil

from bench.machine import describe
from bench.receivers import Receivers, receivers
from bench.webhooks import ENDPOINTS, LIMIT, start_platform
from tests.databases import KINDS, Kind
from tests.system.webhook_platform import WebhookPlatform
from tests.waiting import wait_for

SLOTS = {"threads": 400, "asyncio": 400}  # of the same memory
LANE = "1000"  # in flight for one endpoint: no lane is ever full


@dataclass(frozen=True, slots=True)
class Result:
    """What one pool did."""

    rate: float  # deliveries a second
    memory: float  # MiB of the worker at its peak, without the audit's helper
    processor: float  # ms of the worker for a delivery
    others: float  # as above, of the audit's helper, broker, database, receivers and this program

    def __str__(self) -> str:
        """Return the cells of a table."""
        return f"{self.rate:.0f} | {self.memory:.0f} MiB | {self.processor:.2f} ms | {self.others:.2f} ms"


def main(words: list[str] | None = None) -> None:
    """Run both pools in turn and print a table."""
    parser = argparse.ArgumentParser(prog="bench.webhook_pools", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--thinking", type=int, default=100, metavar="MS", help="until a receiver answers")
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    parser.add_argument("--pools", nargs="+", choices=list(SLOTS), default=list(SLOTS))
    for pool, slots in SLOTS.items():
        parser.add_argument(f"--{pool}", type=int, default=slots, metavar="SLOTS", help="slots of this pool")
    options = parser.parse_args(words or [])
    print(f"{options.deliveries:,} deliveries, {ENDPOINTS} receivers of {options.thinking} ms, {options.database}\n")
    print("| pool | slots | deliveries/s | memory | processor time per delivery | of the others |")
    print("|---|---:|---:|---:|---:|---:|")
    rates = {}
    for pool in options.pools:
        slots = getattr(options, pool)
        with receivers(ENDPOINTS, options.thinking / 1000) as outside:
            result = measure(pool, slots, outside, options.deliveries, options.database)
        print(f"| {pool} | {slots} | {result} |", flush=True)
        rates[pool] = result.rate
    if len(rates) > 1:
        print(f"\nasyncio / threads: {rates['asyncio'] / rates['threads']:.2f}")


def measure(pool: str, slots: int, outside: Receivers, deliveries: int, kind: Kind) -> Result:
    """Queue all deliveries, then let one worker send them; from the first arrival until all are recorded."""
    with start_platform(kind, WEBHOOK_MAX_CONCURRENCY=LANE) as platform:
        for url in outside.urls:
            platform.webhook_rows.endpoint(("all.things",), url)
        platform.emit_together(deliveries // ENDPOINTS, "all.things")
        process = psutil.Process(platform.worker(slots=slots, pool=pool).pid)
        peak = 0

        def has_arrived(number: int) -> bool:
            nonlocal peak
            peak = max(peak, process.memory_info().rss)
            return outside.count >= number

        wait_for(lambda: has_arrived(1), LIMIT, "the first arrives")
        began, used, used_by_all = monotonic(), processor_time([process]), processor_time(everybody())
        wait_for(lambda: has_arrived(deliveries), LIMIT, "all arrive")
        wait_for(lambda: is_recorded(platform, deliveries), LIMIT, "all are recorded")
        took = monotonic() - began
        used = processor_time([process]) - used
        others = processor_time(everybody()) - used_by_all - used
        return Result(deliveries / took, peak / 2**20, used / deliveries * 1000, others / deliveries * 1000)


def is_recorded(platform: WebhookPlatform, deliveries: int) -> bool:
    """Whether all are delivered."""
    return platform.states() == {"delivered": deliveries}


def everybody() -> list[psutil.Process]:
    """This program and all that it started."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def processor_time(processes: Sequence[psutil.Process]) -> float:
    """Seconds, of all threads; a process that has just ended counts nothing."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


if __name__ == "__main__":
    print(describe())
    main(sys.argv[1:])
