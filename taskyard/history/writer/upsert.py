"""Write a batch of events in one transaction: load the rows, reduce, upsert."""

from collections.abc import Sequence

from sqlalchemy import Engine, text

from taskyard.history.events import HistoryEvent
from taskyard.history.task_logs import write_logs
from taskyard.history.writer.bulk_tables import ATTEMPTS, RUNS, BulkTables, tables_of
from taskyard.history.writer.reducer import RunRecords, reduce_events

WRITER_LOCK = 7_236_514_202  # advisory lock: two writers must not update the same row at once


def write_events(engine: Engine, events: Sequence[HistoryEvent]) -> None:
    """
    Write the events and commit.

    Safe to repeat with any overlap of events: see :mod:`taskyard.history.writer.reducer`.

    Raises:
        sqlalchemy.exc.DBAPIError: Nothing was written.
    """
    with engine.begin() as connection:  # SQLite: takes the write lock immediately
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITER_LOCK})
        changes = [event for event in events if event.kind != "logged"]
        tables = tables_of(connection)
        records = _load(tables, changes)
        reduce_events(records, changes)
        tables.put(RUNS, records.runs.values())
        tables.put(ATTEMPTS, records.attempts.values())
        write_logs(connection, [event for event in events if event.kind == "logged"])


def _load(tables: BulkTables, events: Sequence[HistoryEvent]) -> RunRecords:
    records = RunRecords()
    if not events:
        return records
    ids = list({event.run_id for event in events})
    numbers = [event.attempt for event in events]
    for run in tables.runs(ids):
        records.runs[run.id] = run
    for attempt in tables.attempts(ids, min(numbers) - 1, max(numbers) + 1):
        records.attempts[attempt.run_id, attempt.number] = attempt
    return records
