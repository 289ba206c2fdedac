"""Write events into the tables of runs and attempts: load, fold, upsert, in one transaction."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, select, text
from sqlalchemy.dialects import postgresql, sqlite

from audit.events import AuditEvent
from audit.folding import Records, fold
from audit.logs import keep_logs
from audit.models import Attempt, Run
from audit.rows import AttemptRow, RunRow

WRITER_LOCK = 7_236_514_202  # of PostgreSQL's advisory locks: two writers must not fold into the same row at once
RUNS: Table = Run.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models
ATTEMPTS: Table = Attempt.__table__  # type: ignore[attr-defined]  # as above
IDS_PER_QUERY = 500  # SQLite's limit for parameters is high, its query planner's patience is not


def record(engine: Engine, events: Sequence[AuditEvent]) -> None:
    """
    Write the events; when it returns, they are committed.

    Runs twice safely, with any overlap of events: see :mod:`audit.folding`.

    Raises:
        sqlalchemy.exc.DBAPIError: Nothing was written.
    """
    with engine.begin() as connection:  # SQLite: takes the write lock at once
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITER_LOCK})
        changes = [event for event in events if event.kind != "logged"]
        records = _load(connection, changes)
        fold(records, changes)
        _upsert(connection, RUNS, records.runs.values())
        _upsert(connection, ATTEMPTS, records.attempts.values())
        keep_logs(connection, [event for event in events if event.kind == "logged"])


def _load(connection: Connection, events: Sequence[AuditEvent]) -> Records:
    ids = list({event.run_id for event in events})
    numbers = [event.attempt for event in events] or [1]
    near = ATTEMPTS.c.number.between(min(numbers) - 1, max(numbers) + 1)
    records = Records()
    for start in range(0, len(ids), IDS_PER_QUERY):
        some = ids[start : start + IDS_PER_QUERY]
        for row in connection.execute(select(RUNS).where(RUNS.c.id.in_(some))):
            run = RunRow(*row)
            records.runs[run.id] = run
        for row in connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.run_id.in_(some), near)):
            attempt = AttemptRow(*row)
            records.attempts[attempt.run_id, attempt.number] = attempt
    return records


def _upsert(connection: Connection, table: Table, rows: Iterable[RunRow | AttemptRow]) -> None:
    names = [column.name for column in table.columns]
    values = [{name: getattr(row, name) for name in names} for row in rows]
    if not values:
        return
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: statement.excluded[name] for name in names if not table.columns[name].primary_key},
    )
    connection.execute(statement, values)
