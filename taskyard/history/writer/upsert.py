"""Write events into the tables of runs and attempts: load, fold, upsert, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import Engine, text

from taskyard.history.events import AuditEvent
from taskyard.history.queries.logs import keep_logs
from taskyard.history.writer.bulk_tables import ATTEMPTS, RUNS, Tables, tables_of
from taskyard.history.writer.reducer import Records, fold

WRITER_LOCK = 7_236_514_202  # of PostgreSQL's advisory locks: two writers must not fold into the same row at once


def record(engine: Engine, events: Sequence[AuditEvent]) -> None:
    """
    Write the events; when it returns, they are committed.

    Runs twice safely, with any overlap of events: see :mod:`taskyard.history.writer.reducer`.

    Raises:
        sqlalchemy.exc.DBAPIError: Nothing was written.
    """
    with engine.begin() as connection:  # SQLite: takes the write lock at once
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITER_LOCK})
        changes = [event for event in events if event.kind != "logged"]
        tables = tables_of(connection)
        records = _load(tables, changes)
        fold(records, changes)
        tables.put(RUNS, records.runs.values())
        tables.put(ATTEMPTS, records.attempts.values())
        keep_logs(connection, [event for event in events if event.kind == "logged"])


def _load(tables: Tables, events: Sequence[AuditEvent]) -> Records:
    records = Records()
    if not events:
        return records
    ids = list({event.run_id for event in events})
    numbers = [event.attempt for event in events]
    for run in tables.runs(ids):
        records.runs[run.id] = run
    for attempt in tables.attempts(ids, min(numbers) - 1, max(numbers) + 1):
        records.attempts[attempt.run_id, attempt.number] = attempt
    return records
