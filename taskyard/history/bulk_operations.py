"""Bulk redrives and discards of dead letters; progress is counted from the dead letters themselves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.database.paging import Page
from taskyard.history.dead_letters import DeadLetterFilter, count_dead_letters, list_dead_letters
from taskyard.history.models import BulkOperation, DeadLetter
from taskyard.history.operator_log import record_operation

REFUSALS_KEPT = 20  # of an operation: the first ones, with their reasons

type BulkVerb = Literal["redrive", "discard"]


@dataclass(frozen=True, slots=True)
class OperationProgress:
    """Progress of a bulk operation."""

    operation: BulkOperation
    done: int  # dead letters it resolved
    unsent: int  # dead letters marked for a redrive that is not confirmed as sent

    @property
    def left(self) -> int:
        """Dead letters not processed yet; somebody else may resolve some of them meanwhile."""
        return max(self.operation.total - self.done - self.operation.refused_count, 0)


def start_operation(
    session: Session, verb: BulkVerb, wanted: DeadLetterFilter, *, by: str, reason: str
) -> BulkOperation:
    """Insert an operation and its operator log entry. The caller commits, then enqueues the task."""
    facts = {name: _plain(value) for name, value in asdict(wanted).items() if value is not None}
    total = count_dead_letters(session, wanted)
    operation = BulkOperation(verb=verb, filter=facts, who=by, reason=reason or None, total=total)
    session.add(operation)
    record_operation(session, f"dlq {verb}", str(operation.id), reason=reason, facts=facts, count=total)
    return operation


def find_operation(session: Session, operation_id: UUID) -> BulkOperation | None:
    """Return the current state of an operation; None: unknown id."""
    return session.get(BulkOperation, operation_id, populate_existing=True)


def operation_progress(session: Session, operation: BulkOperation) -> OperationProgress:
    """Return how much of an operation is done."""
    mine = col(DeadLetter.operation_id) == operation.id
    done = session.exec(select(func.count()).where(mine, col(DeadLetter.state) != "open")).one()
    unsent = session.exec(select(func.count()).where(mine, *_unsent())).one()
    return OperationProgress(operation, done - unsent, unsent)


def list_bulk(session: Session, limit: int) -> Sequence[BulkOperation]:
    """Return the newest operations."""
    return session.exec(select(BulkOperation).order_by(col(BulkOperation.created_at).desc()).limit(limit)).all()


def next_dead_letters(session: Session, operation: BulkOperation, count: int) -> Page[DeadLetter]:
    """Return the next open dead letters that match, except newer ones and those already refused."""
    given = dict(operation.filter or {})
    for name in ("since", "until"):
        if name in given:
            given[name] = datetime.fromisoformat(given[name])
    wanted = DeadLetterFilter(**given)
    until = min(wanted.until or operation.created_at, operation.created_at)
    return list_dead_letters(session, replace(wanted, state="open", until=until), limit=count, after=operation.place)


def unsent_dead_letters(session: Session, operation_id: UUID, count: int) -> Sequence[DeadLetter]:
    """Return dead letters that a lost worker marked for this operation but never confirmed as sent."""
    query = select(DeadLetter).where(col(DeadLetter.operation_id) == operation_id, *_unsent())
    return session.exec(query.limit(count)).all()


def reopen_unsent(session: Session, operation_id: UUID) -> None:
    """Reopen dead letters marked but not sent, after an abort. The caller commits."""
    nobody = dict.fromkeys(("redriven_run_id", "resolved_at", "resolved_by", "resolution", "operation_id"))
    statement = update(DeadLetter).where(col(DeadLetter.operation_id) == operation_id, *_unsent())
    session.connection().execute(statement.values(state="open", **nobody))


def advance(session: Session, operation: BulkOperation, place: str | None, refused: Sequence[dict[str, str]]) -> None:
    """Save the cursor and the refusals of a batch. The caller commits."""
    kept = [*(operation.refused or []), *refused][:REFUSALS_KEPT]
    values: dict[str, Any] = {"refused": kept, "refused_count": operation.refused_count + len(refused)}
    if place is not None:
        values["place"] = place
    session.connection().execute(update(BulkOperation).where(col(BulkOperation.id) == operation.id).values(**values))


def finish(session: Session, operation_id: UUID) -> None:
    """Mark a running operation as done. The caller commits."""
    _end(session, operation_id, state="done")


def abort(session: Session, operation_id: UUID, *, by: str, reason: str = "") -> bool:
    """Stop an operation after its current batch; False: it has already ended. The caller commits."""
    is_ours = _end(session, operation_id, state="aborted", aborted_by=by)
    if is_ours:
        record_operation(session, "dlq abort", str(operation_id), reason=reason)
    return is_ours


def _end(session: Session, operation_id: UUID, **values: Any) -> bool:
    is_running = (col(BulkOperation.id) == operation_id, col(BulkOperation.state) == "running")
    statement = update(BulkOperation).where(*is_running).values(finished_at=utc_now(), **values)
    return bool(session.connection().execute(statement).rowcount)


def _unsent() -> tuple[Any, Any]:
    return col(DeadLetter.state) == "redriven", col(DeadLetter.redrive_sent_at).is_(None)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
