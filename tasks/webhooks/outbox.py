"""`emit`, for apps: an event is written with the business change, and handed to the broker after the commit."""

from typing import Any

import structlog
from kombu.exceptions import OperationalError
from sqlalchemy import event, select
from sqlalchemy.orm import Session
from sqlmodel import col

from config.settings import current_settings
from tasks.webhooks.emitting import add_event
from tasks.webhooks.models import Delivery
from tasks.webhooks.store import Due
from tasks.webhooks.tasks import enqueue_deliveries

_WAITING = "taskyard.emitted"  # session.info: what to hand over when the transaction is committed
_ROLLED_BACK = "taskyard.rolled_back"  # session.info: some of it may be gone with a savepoint

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
        EventDataError: The data is not JSON or too large; nothing was written.
    """
    event_id, deliveries = add_event(session, current_settings(), event_type, data, idempotency_key)
    if deliveries:
        _waiting(session).extend(Due(row.id, row.endpoint_id) for row in deliveries)
    return event_id


def _waiting(session: Session) -> list[Due]:
    if _WAITING not in session.info:
        session.info[_WAITING] = []
        event.listen(session, "after_commit", _hand_over)
        event.listen(session, "after_soft_rollback", _note_rollback)
    waiting: list[Due] = session.info[_WAITING]
    return waiting


def _hand_over(session: Session) -> None:
    """Runs once the rows are committed: nothing here may raise, the caller's change stands."""
    waiting = list(session.info[_WAITING])
    session.info[_WAITING].clear()
    if session.info.pop(_ROLLED_BACK, False):
        waiting = _still_there(session, waiting)
    try:
        enqueue_deliveries(waiting)
    except (OperationalError, OSError) as error:
        log.warning(
            "webhook.enqueue_failed", deliveries=len(waiting), error=str(error), then="the sweeper enqueues them"
        )


def _note_rollback(session: Session, _previous: Any) -> None:
    session.info[_ROLLED_BACK] = True


def _still_there(session: Session, waiting: list[Due]) -> list[Due]:
    """Ask the database which deliveries survived: a savepoint that was rolled back took its own with it."""
    ids = [row.delivery_id for row in waiting]
    with Session(session.get_bind()) as fresh:
        found = set(fresh.scalars(select(col(Delivery.id)).where(col(Delivery.id).in_(ids))))
    return [row for row in waiting if row.delivery_id in found]
