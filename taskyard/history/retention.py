"""Retention: delete old records in batches; unfinished runs and open dead letters are kept whatever their age."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table, delete, exists
from sqlmodel import Session, col, func, select

from taskyard.history.models import FINAL_STATES, Attempt, BulkOperation, DeadLetter, Run, TaskLog

BATCH = 1000  # runs, or other rows, of one transaction


@dataclass(frozen=True, slots=True)
class Pruned:
    """Numbers of rows deleted, or to be deleted."""

    runs: int = 0
    attempts: int = 0
    logs: int = 0
    dead_letters: int = 0  # redriven or discarded; open ones are kept
    operations: int = 0  # bulk operations; the operator log is kept

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(
            self.runs + other.runs,
            self.attempts + other.attempts,
            self.logs + other.logs,
            self.dead_letters + other.dead_letters,
            self.operations + other.operations,
        )


def prune(
    open_session: Callable[[], Session],
    before: datetime,
    *,
    batch: int = BATCH,
    on_batch: Callable[[Pruned], None] | None = None,
) -> Pruned:
    """
    Delete what ended before a time, one transaction per batch; `on_batch` gets the running total after each.

    A run is deleted with its attempts and logs, unless it has an open dead letter. Safe to run twice, and to stop
    after any batch.
    """
    total = Pruned()
    for step in (_prune_runs, _prune_dead_letters, _prune_operations):
        while True:
            with open_session() as session, session.begin():
                found, part = step(session, before, batch)
            total += part
            if on_batch is not None and found:
                on_batch(total)
            if found < batch:
                break
    return total


def count_prunable(session: Session, before: datetime) -> Pruned:
    """Count what :func:`prune` would delete now."""
    runs = select(col(Run.id)).where(*_old_runs(before))

    def count(model: type, *conditions: ColumnElement[bool]) -> int:
        return session.exec(select(func.count()).select_from(model).where(*conditions)).one()

    return Pruned(
        count(Run, *_old_runs(before)),
        count(Attempt, col(Attempt.run_id).in_(runs)),
        count(TaskLog, col(TaskLog.run_id).in_(runs)),
        count(DeadLetter, *_old_dead_letters(before)),
        count(BulkOperation, *_old_operations(before)),
    )


def _prune_runs(session: Session, before: datetime, batch: int) -> tuple[int, Pruned]:
    query = select(Run.id).where(*_old_runs(before)).order_by(col(Run.finished_at)).limit(batch)
    ids = session.exec(query).all()
    logs = _delete(session, TaskLog, col(TaskLog.run_id).in_(ids))
    attempts = _delete(session, Attempt, col(Attempt.run_id).in_(ids))
    return len(ids), Pruned(runs=_delete(session, Run, col(Run.id).in_(ids)), attempts=attempts, logs=logs)


def _prune_dead_letters(session: Session, before: datetime, batch: int) -> tuple[int, Pruned]:
    ids = session.exec(select(DeadLetter.id).where(*_old_dead_letters(before)).limit(batch)).all()
    return len(ids), Pruned(dead_letters=_delete(session, DeadLetter, col(DeadLetter.id).in_(ids)))


def _prune_operations(session: Session, before: datetime, batch: int) -> tuple[int, Pruned]:
    ids = session.exec(select(BulkOperation.id).where(*_old_operations(before)).limit(batch)).all()
    return len(ids), Pruned(operations=_delete(session, BulkOperation, col(BulkOperation.id).in_(ids)))


def _old_runs(before: datetime) -> list[ColumnElement[bool]]:
    has_open_dead_letter = exists().where(col(DeadLetter.run_id) == col(Run.id), col(DeadLetter.state) == "open")
    return [col(Run.finished_at) < before, col(Run.state).in_(FINAL_STATES), ~has_open_dead_letter]


def _old_dead_letters(before: datetime) -> list[ColumnElement[bool]]:
    return [col(DeadLetter.state).in_(("redriven", "discarded")), col(DeadLetter.resolved_at) < before]


def _old_operations(before: datetime) -> list[ColumnElement[bool]]:
    return [col(BulkOperation.finished_at) < before]


def _delete(session: Session, model: type, condition: ColumnElement[bool]) -> int:
    table: Table = model.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models
    return session.connection().execute(delete(table).where(condition)).rowcount
