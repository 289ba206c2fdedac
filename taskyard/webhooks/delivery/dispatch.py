"""Which deliveries are handed to the broker next: called into a lane with room, due at last, or lost on their way."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, bindparam, case, exists, func, or_, select, update
from sqlmodel import Session, col

from taskyard.database.columns import UtcDateTime
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.limits import Lane
from taskyard.webhooks.models import OPEN_STATES, Delivery, Endpoint


class Due(NamedTuple):
    """A delivery to hand to the broker, and the lane it belongs to."""

    delivery_id: UUID
    endpoint_id: UUID
    wait: timedelta = timedelta(0)  # until its slot
    has_task: bool = True  # it may have one that is alive; False: its last one ended, or is about to


def call_next(
    session: Session, endpoints: Sequence[Endpoint], settings: Settings, now: datetime
) -> dict[UUID, list[Due]]:
    """
    Call as many waiting deliveries as each lane has room for, oldest first; the caller holds the endpoints' locks.

    Under a rate limit each gets its slot with the call.
    """
    open_lanes = [
        endpoint for endpoint in endpoints if endpoint.enabled and Lane(endpoint, 0, settings).places(now) > 0
    ]
    if not open_lanes:
        return {}
    facts = {"endpoint_ids": [endpoint.id for endpoint in open_lanes], "now": now}
    waited_for = set(session.scalars(_HAVE_WAITING, facts))
    if not waited_for:  # the usual case: one statement, and nothing to count
        return {}
    in_flight = count_in_flight(session, waited_for, now)
    return {
        endpoint.id: _call(session, Lane(endpoint, in_flight[endpoint.id], settings), now)
        for endpoint in open_lanes
        if endpoint.id in waited_for
    }


def _call(session: Session, lane: Lane, now: datetime) -> list[Due]:
    endpoint, called = lane.endpoint, list[Due]()
    facts = {"endpoint_id": endpoint.id, "now": now, "places": lane.places(now)}
    for delivery_id in session.scalars(_WAITING_HERE, facts).all():
        slot = lane.reserve(now)
        if slot is None:
            break
        is_early = endpoint.rate_per_second is not None
        values = {"enqueued_at": slot} | ({"next_attempt_at": slot, "slot_reserved": True} if is_early else {})
        session.execute(update(Delivery).where(col(Delivery.id) == delivery_id).values(values))
        called.append(Due(delivery_id, endpoint.id, slot - now, has_task=False))
    return called


def take_waiting(session: Session, settings: Settings, limit: int, now: datetime) -> list[Due]:
    """
    Take the deliveries that are due and have no task: as many for each endpoint as its lane holds.

    The others of the endpoint are called by these when they are done. A paused lane is left alone.
    """
    capacity = case(
        (col(Endpoint.breaker_openings) > 0, 1),
        else_=func.coalesce(col(Endpoint.max_concurrency), settings.webhook_max_concurrency),
    )
    ranked = (
        select(
            col(Delivery.id),
            capacity.label("capacity"),
            func.row_number()
            .over(partition_by=col(Delivery.endpoint_id), order_by=col(Delivery.next_attempt_at))
            .label("place"),
        )
        .join(Endpoint, col(Endpoint.id) == col(Delivery.endpoint_id))
        .where(*_is_waiting(now), or_(col(Endpoint.paused_until).is_(None), col(Endpoint.paused_until) <= now))
        .subquery()
    )
    first = select(ranked.c.id).where(ranked.c.place <= ranked.c.capacity)
    return _take(session, [col(Delivery.id).in_(first), *_is_waiting(now)], limit, now, has_task=False)


def take_lost(session: Session, limit: int, grace: timedelta, now: datetime) -> list[Due]:
    """
    Take deliveries that are due and were handed over longer than ``grace`` ago without a trace of their task since.

    Rows whose lease ran out are among them: a lost worker leaves nothing behind.
    """
    return _take(session, [col(Delivery.enqueued_at) < now - grace, *_is_due(now)], limit, now, has_task=True)


def count_in_flight(session: Session, endpoint_ids: Collection[UUID], now: datetime) -> Counter[UUID]:
    """Count the deliveries of these endpoints that are being sent."""
    counts = session.execute(_IN_FLIGHT, {"endpoint_ids": list(endpoint_ids), "now": now}).all()
    return Counter(dict(counts))


def _take(
    session: Session, which: list[ColumnElement[bool]], limit: int, now: datetime, *, has_task: bool
) -> list[Due]:
    found = session.execute(
        select(col(Delivery.id), col(Delivery.endpoint_id))
        .where(*which)
        .order_by(col(Delivery.next_attempt_at))
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    if found:
        ids = [row.id for row in found]
        session.execute(update(Delivery).where(col(Delivery.id).in_(ids)).values(enqueued_at=now))
    return [Due(row.id, row.endpoint_id, has_task=has_task) for row in found]


def _is_due(now: datetime | BindParameter[datetime]) -> list[ColumnElement[bool]]:
    return [
        col(Delivery.state).in_(OPEN_STATES),
        col(Delivery.next_attempt_at) <= now,
        or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < now),
    ]


def _is_waiting(now: datetime | BindParameter[datetime]) -> list[ColumnElement[bool]]:
    return [col(Delivery.enqueued_at).is_(None), *_is_due(now)]


# Every delivery runs these two; made once, since making a statement costs as much as running it.
_NOW: BindParameter[datetime] = bindparam("now", type_=UtcDateTime())
_IN_FLIGHT = (
    select(col(Delivery.endpoint_id), func.count())
    .where(col(Delivery.endpoint_id).in_(bindparam("endpoint_ids", expanding=True)), col(Delivery.lease_until) > _NOW)
    .group_by(col(Delivery.endpoint_id))
)
_HAVE_WAITING = select(col(Endpoint.id)).where(
    col(Endpoint.id).in_(bindparam("endpoint_ids", expanding=True)),
    exists().where(col(Delivery.endpoint_id) == col(Endpoint.id), *_is_waiting(_NOW)),
)
_WAITING_HERE = (
    select(col(Delivery.id))
    .where(col(Delivery.endpoint_id) == bindparam("endpoint_id"), *_is_waiting(_NOW))
    .order_by(col(Delivery.next_attempt_at))
    .limit(bindparam("places"))
    .with_for_update(skip_locked=True, key_share=True)
)
