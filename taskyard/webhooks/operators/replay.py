"""Send again at an operator's request: failed deliveries, or events that an endpoint missed."""

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, exists, func, select, update
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.history.dead_letters import discard_dead_letters_of
from taskyard.history.operator_log import add_to_count
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_store import delivery_of
from taskyard.webhooks.event_types import patterns_for
from taskyard.webhooks.models import Delivery, Endpoint, Event, Subscription

BATCH = 500


class UnknownDeliveryIdError(LookupError):
    """There is no delivery with this id."""


class EndpointDisabledError(ValueError):
    """Nothing can be sent to a disabled endpoint; enable it first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedDeliveryFilter:
    """Which deliveries to send again."""

    endpoint_id: UUID | None = None  # None: of all endpoints
    event_type: str | None = None
    since: datetime | None = None  # created at or after
    until: datetime | None = None  # created before


def find_delivery(session: Session, delivery_id: UUID) -> Delivery:
    """
    Return the delivery.

    Raises:
        UnknownDeliveryIdError: There is none.
    """
    delivery = session.get(Delivery, delivery_id)
    if delivery is None:
        raise UnknownDeliveryIdError(f"no webhook delivery {delivery_id}")
    return delivery


def count_failed(session: Session, wanted: FailedDeliveryFilter) -> int:
    """Return how many deliveries :func:`reopen_failed` would send again."""
    return len(session.scalars(_failed(wanted)).all())


def reopen_failed(
    session: Session, wanted: FailedDeliveryFilter, operation: UUID | None = None
) -> Iterator[list[DueDelivery]]:
    """
    Give exhausted deliveries fresh attempts, in batches; each batch is committed before it is yielded.

    Their open dead letters are discarded, and each batch is counted in its row of the operator log, in one transaction.
    Runs twice safely: a delivery that was reopened is not exhausted any more.
    """
    while batch := session.scalars(_failed(wanted).limit(BATCH)).all():
        now = utc_now()
        moved = session.execute(
            update(Delivery)
            .where(col(Delivery.id).in_(batch), col(Delivery.state) == "exhausted")
            .values(state="retrying", failures=0, next_attempt_at=now, enqueued_at=now, finished_at=None)
            .returning(col(Delivery.id), col(Delivery.endpoint_id), col(Delivery.exhausted_run_id))
        ).all()
        run_ids = [row.exhausted_run_id for row in moved if row.exhausted_run_id is not None]
        discard_dead_letters_of(session, run_ids, by=getpass.getuser(), reason="the delivery is sent again")
        add_to_count(session, operation, len(moved))
        session.commit()
        yield [DueDelivery(row.id, row.endpoint_id) for row in moved]


def add_missing(
    session: Session, endpoint_id: UUID, since: datetime, operation: UUID | None = None
) -> Iterator[list[DueDelivery]]:
    """
    Make deliveries for events that the endpoint wants and never got, as while it was disabled; in committed batches.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        EndpointDisabledError: It is disabled.
    """
    find_enabled(session, endpoint_id)
    while events := session.scalars(_missed(endpoint_id, since, session).limit(BATCH)).all():
        rows = [delivery_of(event, endpoint_id) for event in events]
        session.add_all(rows)
        add_to_count(session, operation, len(rows))
        session.commit()
        yield [DueDelivery(row.id, row.endpoint_id) for row in rows]


def count_missing(session: Session, endpoint_id: UUID, since: datetime) -> int:
    """Return for how many events :func:`add_missing` would make a delivery."""
    missed = _missed(endpoint_id, since, session).order_by(None).with_only_columns(func.count())
    return session.scalar(missed) or 0


def find_enabled(session: Session, endpoint_id: UUID) -> Endpoint:
    """
    Return an endpoint that may be sent to.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        EndpointDisabledError: It is disabled.
    """
    endpoint = endpoints.find(session, endpoint_id)
    if not endpoint.enabled:
        raise EndpointDisabledError(f"endpoint {endpoint_id} is disabled ({endpoint.disabled_reason}); enable it first")
    return endpoint


def _failed(wanted: FailedDeliveryFilter) -> Select[UUID]:
    query = select(col(Delivery.id)).where(col(Delivery.state) == "exhausted").order_by(col(Delivery.created_at))
    if wanted.endpoint_id is not None:
        query = query.where(col(Delivery.endpoint_id) == wanted.endpoint_id)
    if wanted.event_type is not None:
        query = query.where(col(Delivery.event_type) == wanted.event_type)
    if wanted.since is not None:
        query = query.where(col(Delivery.created_at) >= wanted.since)
    if wanted.until is not None:
        query = query.where(col(Delivery.created_at) < wanted.until)
    return query


def _missed(endpoint_id: UUID, since: datetime, session: Session) -> Select[Event]:
    of_endpoint = select(col(Subscription.pattern)).where(col(Subscription.endpoint_id) == endpoint_id)
    patterns = set(session.scalars(of_endpoint))
    types = session.scalars(select(col(Event.type)).where(col(Event.created_at) >= since).distinct()).all()
    wanted = [event_type for event_type in types if patterns.intersection(patterns_for(event_type))]
    has_delivery = exists().where(col(Delivery.event_id) == col(Event.id), col(Delivery.endpoint_id) == endpoint_id)
    return (
        select(Event)
        .where(col(Event.created_at) >= since, col(Event.type).in_(wanted), ~has_delivery)
        .order_by(col(Event.created_at))
    )
