"""
The audit: what it costs in throughput, and how fast `jobs ls` and `jobs show` are over 1,000,000 runs in PostgreSQL.

The throughput is that of no-op tasks in one worker process, whose writer writes meanwhile (in its helper, since much
waits), interleaved with the same without audit, in one run. `--plans FILE` writes the query plans.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import redis
from sqlalchemy import event, text
from sqlmodel import Session, col, select

from bench.databases import durable_database
from tasks.app import app
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.database.paging import write_cursor
from taskyard.history.models import Run
from taskyard.history.queries.runs import RunFilter, attempts_of, children_of, find_run, list_runs
from taskyard.history.writer.event_writer import backlog
from taskyard.tasks.sending import enqueue_many
from tests.app_broker import use_broker
from tests.databases import Database
from tests.history import records_app
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

LIMIT = 900  # seconds
REPEATS = 40  # of each query
SLOTS = 10
DAYS = 30
FILL = (
    """
    INSERT INTO taskyard_runs (id, task, queue, priority, state, attempts, user_id, root_id, args, enqueued_at,
        started_at, finished_at, wait_ms, runtime_ms, error_type, error_message, error_signature, progress_event,
        queued_event, error_event, last_event, parent_id)
    SELECT md5(i::text)::uuid::text, 'domain' || i % 5 || '.verb' || i % 20, 'queue-' || i % 6, 5,
        CASE WHEN i % 50 = 0 THEN 'failed' WHEN i % 10000 = 1 THEN 'running' ELSE 'succeeded' END,
        1 + (i % 25 = 0)::int,
        CASE WHEN i % 3 = 0 THEN 'user-' || i % 5000 END, md5(i::text)::uuid::text,
        jsonb_build_object('market_id', 'mkt-' || i % 20000, 'order', i, 'note', md5(i::text)),
        at, at + interval '20 ms', at + interval '90 ms', 20, 70,
        CASE WHEN i % 50 = 0 THEN 'TimeoutError' END, CASE WHEN i % 50 = 0 THEN 'order ' || i || ' took too long' END,
        CASE WHEN i % 50 = 0 THEN 'sig' || i % 37 END, '', '', '', '',
        CASE WHEN i % 4 = 0 THEN md5((i / 4)::text)::uuid::text END
    FROM (SELECT i, now() - interval '30 days' * (:total - i) / :total AS at FROM generate_series(1, :total) AS i) AS s
    """,
    """
    INSERT INTO taskyard_attempts (run_id, number, state, snoozes, started_at, finished_at, wait_ms, runtime_ms, worker,
        pid, started_event, last_snooze, last_event)
    SELECT id, n, state, 0, started_at, finished_at, wait_ms, runtime_ms, 'worker@host', 1, '', '', ''
    FROM taskyard_runs, generate_series(1, attempts) AS n
    """,
)


def main(words: list[str] | None = None) -> None:
    """Measure both and print two tables."""
    parser = argparse.ArgumentParser(prog="bench.audit", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000, help="no-op tasks of one round")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind, interleaved; medians count")
    parser.add_argument("--runs", type=int, default=1_000_000, help="rows in PostgreSQL")
    parser.add_argument("--plans", type=Path, help="write the query plans to this file")
    options = parser.parse_args(words or [])
    with servers() as (database, valkey, folder):
        throughput(database, valkey, folder, options.tasks, options.rounds)
        lookups(database, options.runs, options.plans)


@contextmanager
def servers() -> Iterator[tuple[Database, Server, Path]]:
    """A PostgreSQL that waits for the disk at each commit, and a Valkey that syncs its log each second."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = stack.enter_context(Server(folder / "valkey", appendfsync="everysec"))
        yield stack.enter_context(durable_database("postgresql", folder)), valkey, folder


def throughput(database: Database, valkey: Server, folder: Path, tasks: int, rounds: int) -> None:
    """Drain no-op tasks with and without audit, in turn, and print the ratio."""
    use_broker(valkey.url)
    rates: dict[bool, list[float]] = {True: [], False: []}
    waiting: list[int] = []
    for number in range(rounds):
        for is_on in (number % 2 == 0, number % 2 == 1):
            rate, behind = drain(database, valkey, folder / f"{number}{is_on}", tasks, is_on=is_on)
            rates[is_on].append(rate)
            waiting += [behind] if is_on else []
    on, off = statistics.median(rates[True]), statistics.median(rates[False])
    print(f"| {tasks:,} no-op tasks, 1 process x {SLOTS} threads | tasks/s |\n|---|---:|")
    print(
        f"| audit off | {off:.0f} |\n| audit on, rows written meanwhile | {on:.0f} |\n| ratio | {on / off:.2f} |\n",
        flush=True,
    )
    print(f"of {3 * tasks:,} events, {statistics.median(waiting):,.0f} were not in SQL yet when the last task ended\n")


def drain(database: Database, valkey: Server, folder: Path, tasks: int, *, is_on: bool) -> tuple[float, int]:
    """Return tasks per second from the first tenth to the last one, and the events that then wait for the writer."""
    valkey.flush()
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "writes_events": is_on}
    app._after_fork()  # type: ignore[attr-defined]  # noqa: SLF001 - opens connections with these options
    enqueue_many(records_app.greet, [records_app.Greet(name="Ada")] * tasks)
    env = {"DATABASE_URL": database.url, "REDIS_URL": valkey.url, "AUDIT_ENABLED": str(is_on).lower()}
    env |= {"LOG_LEVEL": "warning", "TASKYARD_DATA": str(folder)}
    env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")}  # as when installed
    arguments = ("-P", "threads", "-c", str(SLOTS), "-Q", "celery", *MINIMAL)
    worker = Worker("tests.history.records_app", folder, arguments=arguments, env=env)
    with redis.Redis.from_url(valkey.url) as client:
        control = QueueControl(client)

        def left() -> int:
            counts = control.counts("celery")
            return counts.waiting + counts.active

        try:
            worker.start(wait_ready=False)
            wait_for(lambda: left() < tasks * 9 / 10, LIMIT, "the first tenth is done")
            begin, at_begin = time.monotonic(), left()
            wait_for(lambda: left() == 0, LIMIT, "all are done")
            return at_begin / (time.monotonic() - begin), backlog(client, "taskyard:")
        finally:
            worker.stop()


def lookups(database: Database, total: int, plans: Path | None) -> None:
    """Fill the tables, ask each question often, and print how long the answers took."""
    begin = time.monotonic()
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("TRUNCATE runs, attempts"))
        for statement in FILL:
            connection.execute(text(statement), {"total": total} if ":total" in statement else {})
        connection.execute(text("VACUUM ANALYZE runs"))
        connection.execute(text("VACUUM ANALYZE attempts"))
    print(f"{total:,} runs with their attempts were filled in within {time.monotonic() - begin:.0f} s\n")
    print("| question | p50 | p95 | slowest |\n|---|---:|---:|---:|")
    noted: list[str] = []
    chance = Random(1)  # noqa: S311 - a sample
    with database.session() as session:
        ids = list(session.exec(select(Run.id).order_by(col(Run.id)).limit(500)).all())
        for title, ask in questions(chance, ids).items():
            times = sorted(timed(session, ask) for _ in range(REPEATS))
            p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
            print(f"| {title} | {p50 * 1000:.1f} ms | {p95 * 1000:.1f} ms | {times[-1] * 1000:.1f} ms |", flush=True)
            if plans is not None:
                noted.append(f"## {title}\n\n```\n{plan(session, ask)}\n```\n")
    if plans is not None:
        plans.write_text(f"# Query plans over {total:,} runs\n\n" + "\n".join(noted))


def questions(chance: Random, ids: list[str]) -> dict[str, Callable[[Session], object]]:
    """Return what is asked, each time with other values."""
    now = datetime.now(UTC)

    def listing(**wanted: Callable[[], object]) -> Callable[[Session], object]:
        return lambda session: list_runs(session, RunFilter(**{name: make() for name, make in wanted.items()}))  # type: ignore[arg-type]  # by name

    def day() -> datetime:
        return now - timedelta(days=chance.randrange(1, DAYS))

    def task() -> str:
        number = chance.randrange(20)
        return f"domain{number % 5}.verb{number}"

    return {
        "jobs ls": listing(),
        "jobs ls --task": listing(task=task),
        "jobs ls --queue": listing(queue=lambda: f"queue-{chance.randrange(6)}"),
        "jobs ls --state failed": listing(state=lambda: "failed"),
        "jobs ls --state running (rare)": listing(state=lambda: "running"),
        "jobs ls --state queued (none)": listing(state=lambda: "queued"),
        "jobs ls --user": listing(user_id=lambda: f"user-{chance.randrange(0, 5000, 3)}"),
        "jobs ls --signature": listing(signature=lambda: f"sig{chance.randrange(37)}"),
        "jobs ls --since": listing(since=day),
        "jobs ls --until": listing(until=day),
        "jobs ls --text (one market)": listing(text=lambda: f"mkt-{chance.randrange(20_000)}"),
        "jobs ls --text (one run)": listing(text=lambda: f"{chance.getrandbits(40):x}"),
        "jobs ls --text (in every run)": listing(text=lambda: "market_id"),
        "jobs ls --task --state failed": listing(task=task, state=lambda: "failed"),
        "jobs ls --queue --state failed": listing(queue=lambda: f"queue-{chance.randrange(6)}", state=lambda: "failed"),
        "jobs ls --task --queue (never together)": listing(task=lambda: "domain1.verb1", queue=lambda: "queue-2"),
        "jobs ls --user --state failed": listing(
            user_id=lambda: f"user-{chance.randrange(0, 5000, 3)}", state=lambda: "failed"
        ),
        "jobs ls --queue --until": listing(queue=lambda: f"queue-{chance.randrange(6)}", until=day),
        "jobs ls --text --task": listing(text=lambda: f"mkt-{chance.randrange(20_000)}", task=task),
        "jobs ls, a page far back": lambda session: list_runs(session, RunFilter(), after=write_cursor(day(), ids[0])),
        "jobs show": lambda session: show(session, chance.choice(ids)),
    }


def show(session: Session, run_id: str) -> object:
    """Ask what `jobs show` asks."""
    return find_run(session, run_id), attempts_of(session, run_id), children_of(session, run_id)


def timed(session: Session, ask: Callable[[Session], object]) -> float:
    """Return the seconds of one answer."""
    begin = time.perf_counter()
    ask(session)
    took = time.perf_counter() - begin
    session.rollback()
    session.expunge_all()
    return took


def plan(session: Session, ask: Callable[[Session], object]) -> str:
    """Return how PostgreSQL answers each statement of a question."""
    seen: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        seen.append((statement, parameters))

    engine = session.get_bind().engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        ask(session)
    finally:
        event.remove(engine, "before_cursor_execute", note)
        session.rollback()
    lines: list[str] = []
    with engine.connect() as connection:
        for statement, parameters in seen:
            answer = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)  # type: ignore[arg-type]  # as the driver was given them
            lines += [str(row[0]) for row in answer] + [""]
    return "\n".join(lines).strip()


if __name__ == "__main__":
    main(sys.argv[1:])
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
