"""Redrive or discard many dead letters: in batches, each of which may be the last."""

from collections.abc import Callable
from uuid import UUID

from sqlmodel import Session

from taskyard.history.bulk_operations import (
    Standing,
    advance,
    find_operation,
    finish,
    next_letters,
    reopen_unsent,
    standing_of,
    unsent_letters,
)
from taskyard.history.models import BulkOperation
from taskyard.tasks.dead_letters.redrive_many import discard_batch, redrive_batch, send_again
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.records.payloads import ResolveLetters

BATCH = 100  # letters


def resolve_letters(
    payload: ResolveLetters, open_session: Callable[[], Session], report: Callable[[int, int, str], None]
) -> dict[str, int]:
    """
    Do what is left of an operation; return how many letters were resolved and refused.

    Runs twice safely, also at the same time: a letter is resolved by whoever marks it first, and the place up to which
    the operation has come is kept after each batch. Ends early when the operation was aborted.

    Raises:
        PermanentError: There is no such operation.
        kombu.exceptions.OperationalError: The broker is away; the next attempt goes on.
    """
    while True:
        with open_session() as session:
            operation = find_operation(session, payload.operation_id)
            if operation is None:
                raise PermanentError(f"no operation {payload.operation_id} on dead letters")
            standing = standing_of(session, operation)
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
    """Resolve the next letters; False: there are none."""
    if unsent := unsent_letters(session, operation.id, BATCH):
        refused = send_again(session, unsent)
        advance(session, operation, None, refused)
        session.commit()
        return True
    page = next_letters(session, operation, BATCH)
    session.commit()  # SQLite: a look holds the write lock
    if not page.rows:
        return False
    resolve = redrive_batch if operation.verb == "redrive" else discard_batch
    refused = resolve(session, operation, page.rows)
    advance(session, operation, page.end, refused)
    session.commit()
    return True


def _counts(standing: Standing) -> dict[str, int]:
    return {"resolved": standing.done, "refused": standing.operation.refused_count}


def operation_key(operation_id: UUID) -> str:
    """Return the dedup key of an operation's task: it goes on once at a time."""
    return f"bulk-{operation_id}"
