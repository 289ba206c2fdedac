"""Select the deliveries to enqueue next: released into a free slot, due, or lost on their way."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, bindparam, case, exists, func, or_, select, update
from sqlmodel import Session, col

from taskyard.database.columns import UtcDateTime
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.lanes import HEALTHY, Lane, lane_of, lane_of_endpoint
from taskyard.webhooks.delivery.limits import EndpointLimiter
from taskyard.webhooks.models import OPEN_STATES, Delivery, Endpoint


class DueDelivery(NamedTuple):
    """A delivery to enqueue, with its endpoint."""

    delivery_id: UUID
    endpoint_id: UUID
    wait: timedelta = timedelta(0)  # until its start time under the rate limit
    lane: Lane = HEALTHY
    has_task: bool = True  # a task of it may still be alive; False: the last one has ended or is about to


def release_waiting(
    session: Session, endpoints: Sequence[Endpoint], settings: Settings, now: datetime
) -> dict[UUID, list[DueDelivery]]:
    """
    Release as many waiting deliveries as each endpoint has free slots, oldest first; the caller holds the row locks.

    Under a rate limit each gets its start time with the release.
    """
    open_endpoints = [
        endpoint
        for endpoint in endpoints
        if endpoint.enabled and EndpointLimiter(endpoint, 0, settings).places(now) > 0
    ]
    if not open_endpoints:
        return {}
    facts = {"endpoint_ids": [endpoint.id for endpoint in open_endpoints], "now": now}
    with_waiting = set(session.scalars(_HAVE_WAITING, facts))
    if not with_waiting:  # the usual case: one statement, and nothing to count
        return {}
    in_flight = count_in_flight(session, with_waiting, now)
    return {
        endpoint.id: _release(session, EndpointLimiter(endpoint, in_flight[endpoint.id], settings), now)
        for endpoint in open_endpoints
        if endpoint.id in with_waiting
    }


def _release(session: Session, limiter: EndpointLimiter, now: datetime) -> list[DueDelivery]:
    endpoint, released = limiter.endpoint, list[DueDelivery]()
    facts = {"endpoint_id": endpoint.id, "now": now, "places": limiter.places(now)}
    for delivery_id in session.scalars(_WAITING_HERE, facts).all():
        slot = limiter.reserve(now)
        if slot is None:
            break
        is_early = endpoint.rate_per_second is not None
        values = {"enqueued_at": slot} | ({"next_attempt_at": slot, "slot_reserved": True} if is_early else {})
        session.execute(update(Delivery).where(col(Delivery.id) == delivery_id).values(values))
        released.append(
            DueDelivery(delivery_id, endpoint.id, slot - now, lane=lane_of_endpoint(endpoint), has_task=False)
        )
    return released


def requeue_waiting(session: Session, endpoint_id: UUID, now: datetime) -> None:
    """Take back what was enqueued for an endpoint that has left the slow lane: it is released into the fast one."""
    session.execute(
        update(Delivery)
        .where(col(Delivery.endpoint_id) == endpoint_id, col(Delivery.enqueued_at).is_not(None), *_is_due(now))
        .values(enqueued_at=None)
    )


def take_waiting(session: Session, settings: Settings, limit: int, now: datetime) -> list[DueDelivery]:
    """
    Take the deliveries that are due and have no task: for each endpoint as many as it has slots.

    These release the others of the endpoint when they are done. A paused endpoint is left out.
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


def take_lost(session: Session, limit: int, grace: timedelta, now: datetime) -> list[DueDelivery]:
    """
    Take deliveries that are due although they were enqueued more than ``grace`` ago: their task was lost.

    Rows with an expired lease, left by a lost worker, are among them.
    """
    return _take(session, [col(Delivery.enqueued_at) < now - grace, *_is_due(now)], limit, now, has_task=True)


def count_in_flight(session: Session, endpoint_ids: Collection[UUID], now: datetime) -> Counter[UUID]:
    """Count the deliveries of these endpoints that are being sent."""
    counts = session.execute(_IN_FLIGHT, {"endpoint_ids": list(endpoint_ids), "now": now}).all()
    return Counter(dict(counts))


def _take(
    session: Session, which: list[ColumnElement[bool]], limit: int, now: datetime, *, has_task: bool
) -> list[DueDelivery]:
    found = session.execute(
        select(col(Delivery.id), col(Delivery.endpoint_id), *_HEALTH)
        .where(*which)
        .order_by(col(Delivery.next_attempt_at))
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    if found:
        ids = [row.id for row in found]
        session.execute(update(Delivery).where(col(Delivery.id).in_(ids)).values(enqueued_at=now))
    return [DueDelivery(row[0], row[1], lane=lane_of(row[2], row[3]), has_task=has_task) for row in found]


def _is_due(now: datetime | BindParameter[datetime]) -> list[ColumnElement[bool]]:
    return [
        col(Delivery.state).in_(OPEN_STATES),
        col(Delivery.next_attempt_at) <= now,
        or_(col(Delivery.lease_until).is_(None), col(Delivery.lease_until) < now),
    ]


def _is_waiting(now: datetime | BindParameter[datetime]) -> list[ColumnElement[bool]]:
    return [col(Delivery.enqueued_at).is_(None), *_is_due(now)]


_HEALTH = [
    select(column).where(col(Endpoint.id) == col(Delivery.endpoint_id)).scalar_subquery()
    for column in (col(Endpoint.slow_attempts), col(Endpoint.consecutive_failures))
]
# Every delivery runs these; built once, since building a statement costs as much as running it.
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
