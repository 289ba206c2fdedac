"""
Markets: a resolution of 100,000 predictions, and a global reconciliation of 1,000 markets over 1, 2 and 4 workers.

Real databases (PostgreSQL waits for the disk at each commit), an embedded Valkey that syncs its log each second, real
workers, and a chain node of our own. Broker, database, workers and node share the machine.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from time import monotonic, process_time

from bench.databases import durable_database
from scripts.standins.soroban_node import CONTRACT, StandinNode, account
from tasks.markets.models import Market, Prediction
from tasks.reconciliation.models import MarketLine, ReconciliationReport
from tests.app_broker import use_broker
from tests.databases import Database, Kind
from tests.markets.market_platform import MarketPlatform, environment
from tests.markets.market_rows import MarketRows, resolved_event
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 600  # seconds
POSITIONS = 10  # of each reconciled market
BATCH = 10_000  # predictions added at once


def main(words: list[str] | None = None) -> None:
    """Measure both and print two tables."""
    parser = argparse.ArgumentParser(prog="bench.markets", description=__doc__)
    parser.add_argument("--predictions", type=int, default=100_000, help="of the resolved market")
    parser.add_argument("--markets", type=int, default=1000, help="of the reconciliation")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="worker processes, one row each")
    options = parser.parse_args(words or [])
    print(f"| database | {options.predictions:,} predictions resolved in | CPU of the worker's side |\n|---|---:|---:|")
    for kind in ("postgresql", "sqlite"):
        took, busy = resolution(kind, options.predictions)
        print(f"| {kind} | {took:.2f} s | {busy:.2f} s |", flush=True)
    print(f"\n| worker processes | {options.markets:,} markets compared in | markets/s |\n|---:|---:|---:|")
    for workers in options.workers:
        took = reconciliation(options.markets, workers)
        print(f"| {workers} | {took:.1f} s | {options.markets / took:.0f} |", flush=True)


def resolution(kind: Kind, predictions: int) -> tuple[float, float]:
    """Return the seconds of one resolution, committed, and this process's seconds of CPU in it."""
    with _database(kind) as database:
        market_rows, random = MarketRows(database), Random(5)  # noqa: S311 - a sample
        market_rows.market(fee_bp=100)
        bets = [(random.choice(["yes", "no"]), random.randrange(1, 10**20)) for _ in range(predictions)]
        for start in range(0, predictions, BATCH):
            market_rows.predict(*bets[start : start + BATCH])
        store = market_rows.markets()
        begin, idle = monotonic(), process_time()
        verdict = store.resolve(resolved_event())
        took, busy = monotonic() - begin, process_time() - idle
        settled = verdict.resolution
        if settled is None or market_rows.paid() + settled.fee != sum(amount for _, amount in bets):
            raise RuntimeError("the payouts are not the pool")
        return took, busy


def reconciliation(markets: int, workers: int) -> float:
    """Return the seconds from the first compared market to the report, on PostgreSQL, with the workers running."""
    with _database("postgresql") as database, _platform(database) as (platform, node):
        _fill(MarketRows(database), node, markets)
        for number in range(workers):
            platform.worker(f"worker{number}")
        platform.send("reconciliation.reconcile", {"type": "global"})
        wait_for(lambda: platform.count(MarketLine, state="done"), LIMIT, "the first market is compared")
        begin = monotonic()
        wait_for(lambda: platform.count(ReconciliationReport, state="completed"), LIMIT, "the report is complete")
        took = monotonic() - begin
        if platform.count(MarketLine, status="ok") != markets:
            raise RuntimeError("not every market was compared")
        return took


def _fill(market_rows: MarketRows, node: StandinNode, markets: int) -> None:
    users = {number: market_rows.user(account(number)) for number in range(POSITIONS)}
    names = [f"m{number:05}" for number in range(markets)]
    with market_rows.database.session() as session, session.begin():
        session.add_all(Market(id=name) for name in names)
    with market_rows.database.session() as session, session.begin():
        session.add_all(
            Prediction(
                market_id=name,
                user_id=user,
                outcome="yes",
                amount=number + 1,
                tx_hash=f"{name}-{number}",
                state="confirmed",
            )
            for name in names
            for number, user in users.items()
        )
    for name in names:
        node.put(name, [(account(number), "yes", number + 1) for number in users])


@contextmanager
def _platform(database: Database) -> Iterator[tuple[MarketPlatform, StandinNode]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(StandinNode())
        valkey = stack.enter_context(Server(folder / "valkey", appendfsync="everysec"))
        chain = {"CHAIN_PROVIDER": "soroban", "CHAIN_RPC_URL": node.url, "CHAIN_CONTRACT": CONTRACT}
        calm = {"WORKER_QUEUE_STALLED_INTERVAL": "30000"}
        use_broker(valkey.url)
        platform = MarketPlatform(valkey, database, folder, {**environment(valkey, database, folder), **chain, **calm})
        stack.callback(platform.stop)
        yield platform, node


@contextmanager
def _database(kind: Kind) -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder, durable_database(kind, Path(folder)) as database:
        yield database


if __name__ == "__main__":
    main()
