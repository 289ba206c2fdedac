"""Steps a second of a flow with a large header, beside a Celery chord of the same no-ops; `python -m bench.flows`."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from celery import chord
from sqlalchemy import text
from sqlmodel import Session, select

from bench.databases import durable_database
from bench.flow_tasks import Nothing, nothing
from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.database.engine import current_engine
from taskyard.flows.definition.flow import Flow
from taskyard.flows.models import FlowRow
from taskyard.settings.loading import current_settings
from taskyard.tasks.sending import find_task
from tests.app_broker import use_broker
from tests.databases import Database
from tests.workers import MINIMAL, Worker

LIMIT = 900  # seconds
MIB = 2**20
STATISTICS = "pg_stat_statements"


def main(words: list[str] | None = None) -> None:
    """Start a Valkey, a PostgreSQL and a worker of threads; print a line for the chord and one for the flow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--children", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=20, help="threads of the worker")
    options = parser.parse_args(words or [])
    with tempfile.TemporaryDirectory() as name, EmbeddedValkey(Path(name) / "valkey") as valkey:
        folder = Path(name)
        with durable_database("postgresql", folder, preload=STATISTICS) as database:
            with database.engine.begin() as connection:
                connection.execute(text(f"CREATE EXTENSION {STATISTICS}"))
            os.environ.update(REDIS_URL=valkey.url, DATABASE_URL=database.url)
            use_broker(valkey.url)
            arguments = ("-P", "threads", "-c", str(options.slots), "-Q", "celery", *MINIMAL)
            with Worker("bench.flow_tasks", folder, arguments=arguments) as worker:
                _measure("warm-up", 200, worker, database, _run_flow)
                _measure("chord", options.children, worker, database, _run_chord)
                _measure("flow", options.children, worker, database, _run_flow)
            current_engine().dispose()
            current_settings.cache_clear()


def _measure(
    what: str, children: int, worker: Worker, database: Database, run: Callable[[int, Database], None]
) -> None:
    process = psutil.Process(worker.pid)
    memory, before, began = process.memory_info().rss, _counts(database), time.monotonic()
    busy, all_busy = _processor_seconds([process]), _processor_seconds(_processes())
    run(children, database)
    took = time.monotonic() - began
    busy, all_busy = _processor_seconds([process]) - busy, _processor_seconds(_processes()) - all_busy
    grown = (process.memory_info().rss - memory) / MIB
    statements, transactions = ((now - then) / children for now, then in zip(_counts(database), before, strict=True))
    print(
        f"{what}: {children} children in {took:.1f} s, {children / took:.0f}/s, worker +{grown:.0f} MiB, "
        f"{statements:.2f} statements and {transactions:.2f} transactions a child, "
        f"{1000 * all_busy / children:.1f} ms of processor a child, {1000 * busy / children:.1f} of them the worker's"
    )


def _run_flow(children: int, database: Database) -> None:
    flow = Flow("bench.flow")
    parts = flow.fan_out("parts", nothing, [Nothing(number=number) for number in range(children)])
    flow.step("body", nothing, Nothing(number=-1), after=[parts])
    run = flow.start()

    def has_ended() -> bool:
        with Session(database.engine) as session:
            return session.exec(select(FlowRow.state).where(FlowRow.id == run.id)).one() == "succeeded"

    _wait(has_ended)


def _run_chord(children: int, _database: Database) -> None:
    task: Any = find_task(nothing.name)
    header = [task.si(number=number).set(ignore_result=False) for number in range(children)]
    result = chord(header)(task.si(number=-1).set(ignore_result=False))
    _wait(result.ready)


def _processes() -> list[psutil.Process]:
    """Return this process, and the worker and servers that it started."""
    ours = psutil.Process()
    return [ours, *ours.children(recursive=True)]


def _processor_seconds(processes: list[psutil.Process]) -> float:
    seconds = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def _wait(is_over: Callable[[], bool]) -> None:
    """Look ten times a second: oftener would take the processor from what is measured."""
    end = time.monotonic() + LIMIT
    while not is_over():
        if time.monotonic() > end:
            raise SystemExit(f"not done within {LIMIT} s")
        time.sleep(0.1)


def _counts(database: Database) -> tuple[int, int]:
    """Return how many statements of work, and how many transactions, the database has executed."""
    work = f"SELECT sum(calls) FROM {STATISTICS} WHERE query ~* '^\\s*(with|select|insert|update|delete)'"  # noqa: S608 - a name of ours
    commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    with database.engine.connect() as connection:
        return int(connection.scalar(text(work)) or 0), int(connection.scalar(text(commits)) or 0)


if __name__ == "__main__":
    main(sys.argv[1:])
