"""Measure the scheduler with 10,000 schedules: ticks, memory, and the lag of fires; `python -m bench.schedules`."""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
from sqlalchemy import Engine, insert
from sqlmodel import Session, select

from tasks.app import app
from taskyard.beat.engine.clock import ServerClock
from taskyard.beat.engine.loop import Intervals
from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.beat.scheduler import build_engine
from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.database.engine import current_engine, open_engine
from taskyard.migrations.schema import upgrade
from taskyard.settings.loading import current_settings

COUNT = 10_000
START_UP = timedelta(seconds=20)  # slots that are due earlier are not counted: the leader has just begun


def main(words: list[str] | None = None) -> None:
    """Start a Valkey and a database, make schedules, run an engine for a while, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="schedules")
    parser.add_argument("--seconds", type=int, default=90, help="length of the run")
    parser.add_argument("--database", default="", help="a migrated PostgreSQL; by default a new SQLite file")
    parser.add_argument(
        "--together", action="store_true", help="all due in the same second of each minute: the worst case"
    )
    options = parser.parse_args(words or [])
    with servers(options.database):
        measure(options.count, options.seconds, together=options.together)


@contextmanager
def servers(database_url: str) -> Iterator[None]:
    """Point this process at a new Valkey and a migrated database."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
        os.environ["REDIS_URL"] = valkey.url
        os.environ["DATABASE_URL"] = database_url or f"sqlite:///{folder}/bench.db"
        upgrade(open_engine(os.environ["DATABASE_URL"]))
        yield


def measure(count: int, seconds: int, *, together: bool) -> None:
    """Run one engine, and print the table."""
    plant(count, together=together)
    before = memory()
    engine = build_engine(app, current_settings(), ServerClock(), Intervals())
    took = timed(engine.tick)
    loaded, since = memory(), datetime.now(UTC) + START_UP
    worked = time.process_time()
    ticks = run(engine.tick, seconds)
    worked = time.process_time() - worked
    engine.close()
    rows = lags(current_engine(), since)
    idle = [tick for tick in ticks if tick < 0.05] or [0.0]
    print(f"{'schedules':<34}{count:>12,}{'  (all due in one second of each minute)' if together else ''}")
    print(f"{'first tick: take over, load all':<34}{took:>10.2f} s")
    print(
        f"{'memory of the loaded schedules':<34}{(loaded - before) / 1024:>8.1f} MiB of {loaded / 1024:.0f} MiB in all"
    )
    print(f"{'idle tick, median':<34}{1000 * statistics.median(idle):>9.2f} ms")
    print(f"{'busiest tick':<34}{max(ticks):>10.2f} s")
    print(f"{'processor time, share of one core':<34}{100 * worked / seconds:>10.1f} %")
    print(f"{'fires':<34}{len(rows):>12,}")
    print(f"{'processor time per fire':<34}{1000 * worked / len(rows):>9.2f} ms")
    for share in (0.5, 0.99, 1.0):
        print(f"{f'lag p{share * 100:g}':<34}{rows[min(int(share * len(rows)), len(rows) - 1)]:>9} ms")


def plant(count: int, *, together: bool) -> None:
    """Write schedules of a minute; unless `together`, each with a shift of its own."""
    rows = [
        Schedule(
            id=uuid4(),
            name=f"job-{number}",
            owner="operator",
            task="webhooks.sweep",
            kind="cron",
            expression="* * * * *",
            zone="Europe/Berlin",
            jitter_ms=0 if together else 60_000,
            cursor=datetime.now(UTC),
        ).model_dump()
        for number in range(count)
    ]
    with current_engine().begin() as connection:
        connection.execute(insert(Schedule), rows)


def run(tick: Callable[[], float], seconds: int) -> list[float]:
    """Tick as beat does; return how long each tick took, in seconds."""
    ticks, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        pause = tick()
        ticks.append(time.monotonic() - began)
        time.sleep(pause)  # as the engine asks
    return ticks


def lags(engine: Engine, since: datetime) -> list[int]:
    """Read the lag of each published fire that was due since then, milliseconds, sorted."""
    with Session(engine) as session:
        query = select(ScheduleFire.lag_ms).where(ScheduleFire.state == "published", ScheduleFire.due_at >= since)
        return sorted(lag for lag in session.exec(query) if lag is not None) or [0]


def timed(act: Callable[[], object]) -> float:
    """Return how long it takes, in seconds."""
    began = time.monotonic()
    act()
    return time.monotonic() - began


def memory() -> int:
    """Return the memory of this process now, KiB."""
    gc.collect()
    return psutil.Process().memory_info().rss // 1024


if __name__ == "__main__":
    main(sys.argv[1:])
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
