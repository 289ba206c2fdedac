"""Redrive or discard many dead letters in batches; an abort stops after the current one."""

from collections.abc import Callable
from uuid import UUID

from sqlmodel import Session

from taskyard.history.bulk_operations import (
    OperationProgress,
    advance,
    find_operation,
    finish,
    next_dead_letters,
    operation_progress,
    reopen_unsent,
    unsent_dead_letters,
)
from taskyard.history.models import BulkOperation
from taskyard.tasks.dead_letters.redrive_many import discard_batch, redrive_batch, send_again
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.records.payloads import ResolveDeadLetters

BATCH = 100  # dead letters


def resolve_dead_letters(
    payload: ResolveDeadLetters, open_session: Callable[[], Session], report: Callable[[int, int, str], None]
) -> dict[str, int]:
    """
    Complete an operation; return how many dead letters were resolved and refused.

    Safe to run twice, even concurrently: a dead letter is resolved by whoever marks it first, and the cursor is saved
    after each batch. Ends early if the operation was aborted.

    Raises:
        PermanentError: There is no such operation.
        kombu.exceptions.OperationalError: The broker is unreachable; the next attempt continues.
    """
    while True:
        with open_session() as session:
            operation = find_operation(session, payload.operation_id)
            if operation is None:
                raise PermanentError(f"no operation {payload.operation_id} on dead letters")
            standing = operation_progress(session, operation)
            session.commit()
            report(standing.done, operation.total, operation.verb)
            if operation.state != "running":
                reopen_unsent(session, operation.id)
                session.commit()
                return _counts(standing)
            if not _do_batch(session, operation):
                finish(session, operation.id)
                session.commit()


def _do_batch(session: Session, operation: BulkOperation) -> bool:
    """Resolve the next batch; False: nothing is left."""
    if unsent := unsent_dead_letters(session, operation.id, BATCH):
        refused = send_again(session, unsent)
        advance(session, operation, None, refused)
        session.commit()
        return True
    page = next_dead_letters(session, operation, BATCH)
    session.commit()  # SQLite: a read transaction holds the write lock
    if not page.rows:
        return False
    resolve = redrive_batch if operation.verb == "redrive" else discard_batch
    refused = resolve(session, operation, page.rows)
    advance(session, operation, page.end, refused)
    session.commit()
    return True


def _counts(standing: OperationProgress) -> dict[str, int]:
    return {"resolved": standing.done, "refused": standing.operation.refused_count}


def operation_key(operation_id: UUID) -> str:
    """Return the dedup key of an operation's task: one at a time."""
    return f"bulk-{operation_id}"
