"""Write an event and its deliveries into the caller's open transaction."""

import json
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid4

from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy import Row, Table, bindparam, exists, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import QueryableAttribute, Session, defer
from sqlmodel import col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.lanes import lane_of
from taskyard.webhooks.event_types import check_type, patterns_for
from taskyard.webhooks.models import Delivery, Endpoint, Event, Subscription

FAN_OUT_BOUND = 100  # endpoints whose deliveries are made in the caller's transaction
FAN_OUT_BATCH = 500  # deliveries in one transaction of the task


class EventDataError(ValueError):
    """The event's data is not JSON or too large, or its idempotency key is malformed; nothing was written."""


class IdempotencyConflictError(EventDataError):
    """The idempotency key was used before for an event of another type or with other data; nothing was written."""


class AddedEvent(NamedTuple):
    """What was written for an event."""

    id: str
    due: tuple[DueDelivery, ...] = ()  # to enqueue after the commit
    needs_fan_out: bool = False  # True: too many endpoints for the caller's transaction; a task makes the deliveries


def add_event(
    session: Session, settings: Settings, event_type: str, data: Any, idempotency_key: str | None = None
) -> AddedEvent:
    """
    Write the event and one delivery for each enabled endpoint that wants it.

    The body is serialised and stored once: every attempt signs and sends these bytes. For more than FAN_OUT_BOUND
    endpoints only the event is written. A key that was used before returns the first event's id and no deliveries.

    Raises:
        EventTypeError: The type is malformed or not known.
        EventDataError: The data is not JSON or larger than WEBHOOK_MAX_BODY, or the key is not 1-255 printable
            characters.
        IdempotencyConflictError: The key belongs to an event of another type or with other data.
    """
    check_type(event_type, settings.webhook_event_types)
    _check_key(idempotency_key)
    now = utc_now()
    body, content_sha256 = _body(event_type, data, now, settings.webhook_max_body)
    event = Event(id=f"msg_{uuid4().hex}", type=event_type, body=body, idempotency_key=idempotency_key, created_at=now)
    event.content_sha256 = content_sha256
    facts = {"patterns": patterns_for(event_type), "most": FAN_OUT_BOUND + 1}
    wanted = session.execute(_WANTED, facts).all()
    event.needs_fan_out = len(wanted) > FAN_OUT_BOUND
    first_id = _insert_event(session, event)
    if first_id != event.id:
        return AddedEvent(first_id)
    due = () if event.needs_fan_out else insert_deliveries(session, event, wanted)
    return AddedEvent(event.id, tuple(due), event.needs_fan_out)


def fan_out(session: Session, event_id: str) -> list[DueDelivery]:
    """
    Make the next FAN_OUT_BATCH deliveries of an event whose deliveries are not all made; an empty list: all are made.

    The event's row is locked, so that two tasks never make the same one. The caller commits.
    """
    is_event = col(Event.id) == event_id
    event = session.scalars(
        select(Event).where(is_event, col(Event.needs_fan_out)).with_for_update().options(defer(_BODY))
    ).first()
    if event is None:
        return []
    facts = {"patterns": patterns_for(event.type), "most": FAN_OUT_BATCH, "event_id": event_id}
    wanted = session.execute(_STILL_WANTED, facts).all()
    if not wanted:
        event.needs_fan_out = False
    return insert_deliveries(session, event, wanted)


def pending_fan_outs(session: Session) -> list[str]:
    """Return the ids of events whose deliveries are not all made, oldest first."""
    return list(session.scalars(select(col(Event.id)).where(col(Event.needs_fan_out)).order_by(col(Event.created_at))))


def insert_deliveries(session: Session, event: Event, wanted: Sequence[Row[UUID, int, int]]) -> list[DueDelivery]:
    """Insert a delivery for each endpoint, given with its slow and its failed attempts in a row."""
    made = [(delivery_of(event, row[0]), lane_of(row[1], row[2])) for row in wanted]
    if made:
        session.execute(_INSERT_DELIVERIES, [delivery.model_dump() for delivery, _ in made])
    return [DueDelivery(row.id, row.endpoint_id, lane=lane) for row, lane in made]


def delivery_of(event: Event, endpoint_id: UUID) -> Delivery:
    """Make the delivery of an event to one endpoint: due now, and marked as enqueued."""
    now = utc_now()
    return Delivery(
        event_id=event.id,
        endpoint_id=endpoint_id,
        event_type=event.type,
        next_attempt_at=now,
        enqueued_at=now,
        created_at=now,
    )


def _check_key(key: Any) -> None:
    if key is None:
        return
    if not isinstance(key, str) or not (key.isprintable() and 1 <= len(key) <= 255):  # noqa: PLR2004 - the column's length
        raise EventDataError("an idempotency key has 1 to 255 printable characters")


def _body(event_type: str, data: Any, now: datetime, max_bytes: int) -> tuple[bytes, str]:
    """Return the envelope's bytes, and the digest of what does not depend on the time."""
    try:
        text = json.dumps(to_jsonable_python(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        head = json.dumps({"type": event_type, "timestamp": now.isoformat()}, separators=(",", ":"))
        body = f'{head[:-1]},"data":{text}}}'.encode()
    except (PydanticSerializationError, ValueError) as error:
        raise EventDataError(f"the data of {event_type} is not JSON: {error}") from error
    if len(body) > max_bytes:
        raise EventDataError(f"the event has {len(body)} bytes, at most {max_bytes} are sent; send an id instead")
    return body, sha256(f"{event_type} {text}".encode()).hexdigest()


def _insert_event(session: Session, event: Event) -> str:
    """Insert the row unless its idempotency key exists; return the id of the row that is there."""
    session.execute(_INSERT_EVENT[session.get_bind().dialect.name], event.model_dump())
    if event.idempotency_key is None:
        return event.id
    first = session.execute(
        select(col(Event.id), col(Event.content_sha256)).where(col(Event.idempotency_key) == event.idempotency_key)
    ).one()
    if first.content_sha256 != event.content_sha256:
        raise IdempotencyConflictError(
            f"the idempotency key was used before, for event {first.id} of another type or with other data"
        )
    return str(first.id)


# Built once: building a statement costs as much as running it.
_BODY = cast("QueryableAttribute[bytes]", Event.body)
_WANTED = (
    select(col(Endpoint.id), col(Endpoint.slow_attempts), col(Endpoint.consecutive_failures))
    .join(Subscription, col(Subscription.endpoint_id) == col(Endpoint.id))
    .where(col(Subscription.pattern).in_(bindparam("patterns", expanding=True)), col(Endpoint.enabled))
    .distinct()
    .limit(bindparam("most"))
)
_STILL_WANTED = _WANTED.where(
    ~exists().where(col(Delivery.endpoint_id) == col(Endpoint.id), col(Delivery.event_id) == bindparam("event_id"))
)
_INSERT_DELIVERIES = insert(cast("Table", inspect(Delivery).local_table))
_INSERT_EVENT = {
    dialect.dialect.name: dialect.insert(cast("Table", inspect(Event).local_table)).on_conflict_do_nothing(
        index_elements=["idempotency_key"]
    )
    for dialect in (postgresql, sqlite)
}
