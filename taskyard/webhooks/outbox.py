"""`emit`, for apps: an event is written with the business change and enqueued after the commit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, event, select, update
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import col

from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.event_types import refuse_operational
from taskyard.webhooks.models import Delivery, Event
from taskyard.webhooks.platform_database import check_database
from taskyard.webhooks.tasks import enqueue_deliveries, enqueue_fan_outs

type EmitEvent = Callable[[Session, str, Any, str | None], str]  # what `emit` is to code that is handed it

_INFO_KEY = "taskyard.emitted"  # session.info: what to enqueue after the commit

log = structlog.stdlib.get_logger(__name__)


def emit(session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
    """
    Emit an event in the caller's own transaction; return its id, the `webhook-id` that receivers see.

    The event and one delivery per subscribed endpoint are rows of this transaction: they exist if and only if it
    commits. After the commit they are enqueued; if that fails, if the process dies, or if the session has joined a
    transaction of its connection, the sweeper enqueues them.

    Args:
        session: An open SQLAlchemy or SQLModel session on the platform's database; with an ``AsyncSession``:
            ``await session.run_sync(emit, "market.resolved", data)``.
        event_type: Such as ``market.resolved``; types that begin with ``webhook.`` are the platform's own.
        data: Anything that is JSON, a Pydantic model or a dataclass.
        idempotency_key: The same key again, with the same type and data, returns the first event's id and writes
            nothing.

    Raises:
        TypeError: Not a session; nothing was written.
        WrongDatabaseError: A session on another database than the platform's; nothing was written.
        EventTypeError: The type is malformed, not known, or the platform's own; nothing was written.
        EventDataError: The data is not JSON or too large, or the key is malformed; nothing was written.
        IdempotencyConflictError: The key was used before with another type or other data; nothing was written.
    """
    _check_session(session)
    settings = current_settings()
    refuse_operational(event_type)
    check_database(session, settings)
    added = add_event(session, settings, event_type, data, idempotency_key)
    if added.due or added.needs_fan_out:
        emitted = _emitted_in_transaction(session)
        emitted.due.extend(added.due)
        emitted.fan_outs += [added.id] if added.needs_fan_out else []
    return added.id


def _check_session(session: Any) -> None:
    """Refuse what would fail later, with words about something else."""
    if isinstance(session, Session):
        return
    if hasattr(session, "run_sync"):  # AsyncSession and AsyncConnection, whose module needs not be installed
        raise TypeError(f"emit takes a Session, not {type(session).__name__}: await session.run_sync(emit, ...)")
    if isinstance(session, Connection):
        raise TypeError("emit takes a Session, not a Connection: emit(Session(connection), ...)")
    raise TypeError(f"emit takes an SQLAlchemy or SQLModel Session, not {type(session).__name__}")


@dataclass(slots=True)
class _Emitted:
    """What one transaction emitted."""

    transaction: SessionTransaction | None
    due: list[DueDelivery] = field(default_factory=list)
    fan_outs: list[str] = field(default_factory=list)  # ids of events for more endpoints than FAN_OUT_BOUND
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
    Runs once the rows are committed.

    SQLAlchemy calls it at the end of each savepoint too, and when the session has joined a transaction that its
    connection had begun: nothing is committed then.
    """
    emitted: _Emitted | None = session.info.get(_INFO_KEY)
    if emitted is None or session.in_nested_transaction():
        return
    session.info[_INFO_KEY] = _Emitted(None)
    if emitted.transaction is not session.get_transaction() or not (emitted.due or emitted.fan_outs):
        return
    bind = session.get_bind()
    if isinstance(bind, Connection) and bind.in_transaction():
        _leave_to_sweeper(bind, emitted)
    else:
        _enqueue(session.get_bind(), emitted)


def _leave_to_sweeper(connection: Connection, emitted: _Emitted) -> None:
    """
    Mark the deliveries as not enqueued, in the transaction that the session has joined.

    SQLAlchemy tells nobody that a connection's own transaction is committed: it says so before, and a task that comes
    too early would find no row.
    """
    ids = [row.delivery_id for row in emitted.due]
    connection.execute(update(Delivery).where(col(Delivery.id).in_(ids)).values(enqueued_at=None))


def _enqueue(bind: Any, emitted: _Emitted) -> None:
    """Nothing here may raise: the caller's change is committed."""
    try:
        due, fan_outs = (emitted.due, emitted.fan_outs) if emitted.is_checked else _still_there(bind, emitted)
        enqueue_deliveries(due)
        enqueue_fan_outs(fan_outs)
    except Exception as error:  # noqa: BLE001 - an edge of the platform: the app's change is committed, come what may
        log.warning(
            "webhook.enqueue_failed", deliveries=len(emitted.due), error=str(error), then="the sweeper enqueues them"
        )


def _note_rollback(session: Session, _previous: Any) -> None:
    emitted: _Emitted | None = session.info.get(_INFO_KEY)
    if emitted is not None:
        emitted.is_checked = False


def _still_there(bind: Any, emitted: _Emitted) -> tuple[list[DueDelivery], list[str]]:
    """Return the deliveries and events that exist: a rolled back savepoint removed those emitted inside it."""
    ids = [row.delivery_id for row in emitted.due]
    with Session(bind) as fresh:
        found = set(fresh.scalars(select(col(Delivery.id)).where(col(Delivery.id).in_(ids))))
        events = set(fresh.scalars(select(col(Event.id)).where(col(Event.id).in_(emitted.fan_outs))))
    return [row for row in emitted.due if row.delivery_id in found], [one for one in emitted.fan_outs if one in events]
