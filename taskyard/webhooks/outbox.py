"""`emit`, for apps: an event is written with the business change, and handed to the broker after the commit."""

from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import event, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import col

from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery.dispatch import Due
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery
from taskyard.webhooks.tasks import enqueue_deliveries

_WAITING = "taskyard.emitted"  # session.info: what to hand over when the transaction is committed

log = structlog.stdlib.get_logger(__name__)


def emit(session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
    """
    Emit an event in the caller's own transaction; return its id, the `webhook-id` that receivers see.

    The event and one delivery per subscribed endpoint are rows of this transaction: they exist if and only if it
    commits. After the commit they are handed to the broker; if that fails or the process dies, the sweeper does it.

    Args:
        session: An open SQLAlchemy or SQLModel session on the platform's database.
        event_type: Such as ``market.resolved``.
        data: Anything that is JSON, a Pydantic model or a dataclass.
        idempotency_key: The same key again returns the first event's id and writes nothing.

    Raises:
        EventTypeError: The type is malformed or not known; nothing was written.
        EventDataError: The data is not JSON or too large, or the key is malformed; nothing was written.
    """
    event_id, deliveries = add_event(session, current_settings(), event_type, data, idempotency_key)
    if deliveries:
        _waiting(session).due.extend(Due(row.id, row.endpoint_id) for row in deliveries)
    return event_id


@dataclass(slots=True)
class _Waiting:
    """What one transaction emitted."""

    transaction: SessionTransaction | None
    due: list[Due] = field(default_factory=list)
    is_checked: bool = True  # False: a savepoint was rolled back, and may have taken some with it


def _waiting(session: Session) -> _Waiting:
    """Return the list of the session's transaction; one of an earlier transaction that never committed is dropped."""
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is None:
        event.listen(session, "after_commit", _hand_over)
        event.listen(session, "after_soft_rollback", _note_rollback)
    transaction = session.get_transaction()
    if waiting is None or waiting.transaction is not transaction:
        waiting = session.info[_WAITING] = _Waiting(transaction)
    return waiting


def _hand_over(session: Session) -> None:
    """
    Runs once the rows are committed: nothing here may raise, the caller's change stands.

    SQLAlchemy calls it at the end of each savepoint too: nothing is committed then.
    """
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is None or session.in_nested_transaction():
        return
    session.info[_WAITING] = _Waiting(None)
    if waiting.transaction is not session.get_transaction() or not waiting.due:
        return
    try:
        enqueue_deliveries(waiting.due if waiting.is_checked else _still_there(session, waiting.due))
    except Exception as error:  # noqa: BLE001 - an edge of the platform: the app's change is committed, come what may
        log.warning(
            "webhook.enqueue_failed", deliveries=len(waiting.due), error=str(error), then="the sweeper enqueues them"
        )


def _note_rollback(session: Session, _previous: Any) -> None:
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is not None:
        waiting.is_checked = False


def _still_there(session: Session, waiting: list[Due]) -> list[Due]:
    """Ask the database which deliveries survived: a savepoint that was rolled back took its own with it."""
    ids = [row.delivery_id for row in waiting]
    with Session(session.get_bind()) as fresh:
        found = set(fresh.scalars(select(col(Delivery.id)).where(col(Delivery.id).in_(ids))))
    return [row for row in waiting if row.delivery_id in found]
