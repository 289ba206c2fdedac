"""Log lines of handlers, stored per attempt and bounded."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col
from sqlmodel import select as select_model

from taskyard.history.events import HistoryEvent
from taskyard.history.models import TaskLog
from taskyard.history.writer.truncation import LOG_BYTES, clean_json

LOGS: Table = TaskLog.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models
EVENTS_KEPT = 50  # newest events kept per attempt: one that snoozes for ever must not fill the table


def write_logs(connection: Connection, events: Sequence[HistoryEvent]) -> None:
    """Insert log events within the caller's transaction, and delete the oldest of an attempt that has too many."""
    values = [
        {"run_id": event.run_id, "attempt": event.attempt, "event": event.id, "lines": _lines(event)}
        for event in events
    ]
    if not values:
        return
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(LOGS).on_conflict_do_nothing(), values)
    for run_id, attempt in {(event.run_id, event.attempt) for event in events}:
        mine = (LOGS.c.run_id == run_id, LOGS.c.attempt == attempt)
        newest = select(LOGS.c.event).where(*mine).order_by(LOGS.c.event.desc()).limit(EVENTS_KEPT)
        connection.execute(delete(LOGS).where(*mine, LOGS.c.event.not_in(newest)))


def lines_of(
    session: Session, run_id: str, *, attempt: int | None = None, after: str = ""
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield (position, attempt, line) of a run; a line has at, level, logger and message; `after` is a position."""
    query = select_model(TaskLog).where(TaskLog.run_id == run_id, col(TaskLog.event) > after)
    if attempt is not None:
        query = query.where(TaskLog.attempt == attempt)
    for row in session.exec(query.order_by(col(TaskLog.event))).all():
        for line in row.lines or []:
            yield row.event, row.attempt, line


def _lines(event: HistoryEvent) -> list[dict[str, Any]]:
    """Return the lines of an event; none if they are malformed."""
    given = clean_json(event.detail.get("lines"), LOG_BYTES)
    if not isinstance(given, list):
        return []
    return [line for line in given if isinstance(line, dict)]
