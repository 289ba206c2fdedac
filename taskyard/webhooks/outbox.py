"""`emit`, for apps: an event is written with the business change and enqueued after the commit."""

from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import event, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import col

from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery
from taskyard.webhooks.tasks import enqueue_deliveries

_INFO_KEY = "taskyard.emitted"  # session.info: what to enqueue after the commit

log = structlog.stdlib.get_logger(__name__)


def emit(session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
    """
    Emit an event in the caller's own transaction; return its id, the `webhook-id` that receivers see.

    The event and one delivery per subscribed endpoint are rows of this transaction: they exist if and only if it
    commits. After the commit they are enqueued; if that fails or the process dies, the sweeper enqueues them.

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
        _emitted_in_transaction(session).due.extend(DueDelivery(row.id, row.endpoint_id) for row in deliveries)
    return event_id


@dataclass(slots=True)
class _Emitted:
    """What one transaction emitted."""

    transaction: SessionTransaction | None
    due: list[DueDelivery] = field(default_factory=list)
    is_checked: bool = True  # False: a savepoint was rolled back, so some of them may not exist


def _emitted_in_transaction(session: Session) -> _Emitted:
    """Return what the session's transaction emitted; drops what an earlier one emitted and never committed."""
    emitted: _Emitted | None = session.info.get(_INFO_KEY)
    if emitted is None:
        event.listen(session, "after_commit", _enqueue_after_commit)
        event.listen(session, "after_soft_rollback", _note_rollback)
    transaction = session.get_transaction()
    if emitted is None or emitted.transaction is not transaction:
        emitted = session.info[_INFO_KEY] = _Emitted(transaction)
    return emitted


def _enqueue_after_commit(session: Session) -> None:
    """
    Runs once the rows are committed: nothing here may raise, the caller's change stands.

    SQLAlchemy calls it at the end of each savepoint too: nothing is committed then.
    """
    emitted: _Emitted | None = session.info.get(_INFO_KEY)
    if emitted is None or session.in_nested_transaction():
        return
    session.info[_INFO_KEY] = _Emitted(None)
    if emitted.transaction is not session.get_transaction() or not emitted.due:
        return
    try:
        enqueue_deliveries(emitted.due if emitted.is_checked else _still_there(session, emitted.due))
    except Exception as error:  # noqa: BLE001 - an edge of the platform: the app's change is committed, come what may
        log.warning(
            "webhook.enqueue_failed", deliveries=len(emitted.due), error=str(error), then="the sweeper enqueues them"
        )


def _note_rollback(session: Session, _previous: Any) -> None:
    emitted: _Emitted | None = session.info.get(_INFO_KEY)
    if emitted is not None:
        emitted.is_checked = False


def _still_there(session: Session, emitted: list[DueDelivery]) -> list[DueDelivery]:
    """Return the deliveries that exist: a rolled back savepoint removed those emitted inside it."""
    ids = [row.delivery_id for row in emitted]
    with Session(session.get_bind()) as fresh:
        found = set(fresh.scalars(select(col(Delivery.id)).where(col(Delivery.id).in_(ids))))
    return [row for row in emitted if row.delivery_id in found]
