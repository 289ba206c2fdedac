"""Write an event and its deliveries into the caller's open transaction."""

import json
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from pydantic_core import PydanticSerializationError, to_jsonable_python
from sqlalchemy import Table, bindparam, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.event_types import check_type, patterns_for
from taskyard.webhooks.models import Delivery, Endpoint, Event, Subscription


class EventDataError(ValueError):
    """The event's data is not JSON or too large, or its idempotency key is malformed; nothing was written."""


def add_event(
    session: Session, settings: Settings, event_type: str, data: Any, idempotency_key: str | None = None
) -> tuple[str, list[Delivery]]:
    """
    Write the event and one delivery for each enabled endpoint that wants it; return the event's id and the deliveries.

    The body is serialised here, once: every attempt signs and sends these bytes. A key that was used before returns
    the first event's id and no deliveries.

    Raises:
        EventTypeError: The type is malformed or not known.
        EventDataError: The data is not JSON or larger than WEBHOOK_MAX_BODY, or the key is not 1-255 printable
            characters.
    """
    check_type(event_type, settings.webhook_event_types)
    _check_key(idempotency_key)
    now = utc_now()
    body = _body(event_type, data, now, settings.webhook_max_body)
    event = Event(id=f"msg_{uuid4().hex}", type=event_type, body=body, idempotency_key=idempotency_key, created_at=now)
    first_id = _insert_event(session, event)
    if first_id != event.id:
        return first_id, []
    wanted = session.scalars(_WANTED, {"patterns": patterns_for(event_type)})
    deliveries = [delivery_of(event, endpoint_id) for endpoint_id in wanted]
    if deliveries:
        session.execute(_INSERT_DELIVERIES, [delivery.model_dump() for delivery in deliveries])
    return event.id, deliveries


def delivery_of(event: Event, endpoint_id: UUID) -> Delivery:
    """Make the delivery of an event to one endpoint: due now, and marked as enqueued."""
    now = utc_now()
    return Delivery(
        event_id=event.id,
        endpoint_id=endpoint_id,
        event_type=event.type,
        body=event.body,
        content_type=event.content_type,
        next_attempt_at=now,
        enqueued_at=now,
        created_at=now,
    )


def _check_key(key: Any) -> None:
    if key is None:
        return
    if not isinstance(key, str) or not (key.isprintable() and 1 <= len(key) <= 255):  # noqa: PLR2004 - the column's length
        raise EventDataError("an idempotency key has 1 to 255 printable characters")


def _body(event_type: str, data: Any, now: datetime, max_bytes: int) -> bytes:
    try:
        envelope = {"type": event_type, "timestamp": now.isoformat(), "data": to_jsonable_python(data)}
        body = json.dumps(envelope, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (PydanticSerializationError, ValueError) as error:
        raise EventDataError(f"the data of {event_type} is not JSON: {error}") from error
    if len(body) > max_bytes:
        raise EventDataError(f"the event has {len(body)} bytes, at most {max_bytes} are sent; send an id instead")
    return body


def _insert_event(session: Session, event: Event) -> str:
    """Insert the row unless its idempotency key exists; return the id of the row that is there."""
    session.execute(_INSERT_EVENT[session.get_bind().dialect.name], event.model_dump())
    if event.idempotency_key is None:
        return event.id
    return str(session.scalar(select(col(Event.id)).where(col(Event.idempotency_key) == event.idempotency_key)))


# Built once: building a statement costs as much as running it.
_WANTED = (
    select(col(Endpoint.id))
    .join(Subscription, col(Subscription.endpoint_id) == col(Endpoint.id))
    .where(col(Subscription.pattern).in_(bindparam("patterns", expanding=True)), col(Endpoint.enabled))
    .distinct()
)
_INSERT_DELIVERIES = insert(cast("Table", inspect(Delivery).local_table))
_INSERT_EVENT = {
    dialect.dialect.name: dialect.insert(cast("Table", inspect(Event).local_table)).on_conflict_do_nothing(
        index_elements=["idempotency_key"]
    )
    for dialect in (postgresql, sqlite)
}
