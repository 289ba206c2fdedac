"""What operators see of endpoints, deliveries and attempts: read only, without bodies and secrets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, Uuid, func, literal, select, tuple_
from sqlmodel import Session, col

from taskyard.database.columns import UtcDateTime, utc_now
from taskyard.database.paging import PAGE, BadCursorError, Page, read_cursor, write_cursor
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.models import STATES, Delivery, DeliveryAttempt, Endpoint, Event, Subscription
from taskyard.webhooks.operators.replay import find_delivery
from taskyard.webhooks.signing.schemes import PrivateKey

LISTED = (  # of a delivery; without its body
    *("id", "event_id", "event_type", "endpoint_id", "state", "attempts", "next_attempt_at", "created_at"),
    *("finished_at", "last_status", "last_error"),
)
SUCCESS = 2  # the 2xx class of answers

type Health = Literal["ok", "failing", "paused", "disabled"]


class EndpointView(BaseModel):
    """An endpoint with its limits and its health."""

    id: UUID
    url: str
    description: str
    patterns: list[str]
    health: Health
    disabled_reason: str | None
    paused_until: datetime | None
    failing_since: datetime | None
    last_success_at: datetime | None
    sends_standard: bool
    sends_predictify: bool
    extra_headers: list[str]  # names only: a value may be a credential
    max_concurrency: int | None  # None: the setting WEBHOOK_MAX_CONCURRENCY
    rate_per_second: float | None
    retry_delays: list[float] | None  # seconds; None: the setting WEBHOOK_RETRY_DELAYS
    deliveries: dict[str, int]  # by state, all states
    created_at: datetime


class DeliveryView(BaseModel):
    """A delivery as a line of a list."""

    id: UUID
    event_id: str
    event_type: str
    endpoint_id: UUID
    state: str
    attempts: int
    last_answer: str | None  # "HTTP 503", or an error code
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class AttemptView(BaseModel):
    """One attempt, as it was made."""

    number: int
    trigger: str
    by: str | None
    started_at: datetime
    total_ms: int | None
    phases: dict[str, float]  # dns_ms, connect_ms, ttfb_ms, as far as they happened
    remote_ip: str | None
    answer: str | None  # "HTTP 503", or an error code
    is_success: bool
    answer_chars: int  # of the answer's body that were kept
    next_attempt_at: datetime | None
    worker: str | None


class DeliveryDetails(DeliveryView):
    """A delivery with its attempts; of the body only what identifies it."""

    endpoint_url: str
    body_bytes: int
    body_sha256: str
    timeline: list[AttemptView]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries to list; None leaves a filter out."""

    endpoint_id: UUID | None = None
    state: str | None = None  # one of models.STATES
    event_type: str | None = None
    since: datetime | None = None  # created at or after
    until: datetime | None = None  # created before


def list_endpoints(session: Session) -> list[EndpointView]:
    """Return all endpoints, oldest first."""
    rows = session.scalars(select(Endpoint).order_by(col(Endpoint.created_at), col(Endpoint.id))).all()
    return _endpoint_views(session, rows)


def show_endpoint(session: Session, endpoint_id: UUID) -> EndpointView:
    """
    Return one endpoint.

    Raises:
        UnknownEndpointError: There is none.
    """
    return _endpoint_views(session, [endpoints.find(session, endpoint_id)])[0]


def public_keys(session: Session, settings: Settings, endpoint_id: UUID) -> list[str]:
    """
    Return the public keys (``whpk_``) that verify an endpoint's requests now, newest first.

    Empty for an endpoint with a shared secret, and where WEBHOOK_SECRET_KEYS, which its key is sealed with, is not set.

    Raises:
        SealedSecretError: A secret does not open with the master keys that are set.
    """
    if settings.webhook_secret_keys is None:
        return []
    active = endpoints.active_secrets(session, endpoints.open_vault(settings), endpoint_id, utc_now())
    return [secret.receiver_key() for secret, _ in active if isinstance(secret, PrivateKey)]


def list_deliveries(
    session: Session, wanted: DeliveryFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[DeliveryView]:
    """
    Return a page of deliveries, newest first.

    Raises:
        BadCursorError: ``after`` does not come from an earlier page.
    """
    columns: list[Any] = [getattr(Delivery, name) for name in LISTED]
    query: Select[Any] = select(*columns)
    key = (col(Delivery.created_at), col(Delivery.id))
    query = query.where(*_conditions(wanted)).order_by(*(column.desc() for column in key)).limit(limit + 1)
    if after is not None:
        moment, last = read_cursor(after)
        query = query.where(tuple_(*key) < tuple_(literal(moment, UtcDateTime()), literal(_uuid(last), Uuid())))
    found = [entry._asdict() for entry in session.execute(query)]
    views = [DeliveryView(**row, last_answer=_answer(row["last_status"], row["last_error"])) for row in found[:limit]]
    return Page(views, write_cursor(views[-1].created_at, str(views[-1].id)) if len(found) > limit else None)


def show_delivery(session: Session, delivery_id: UUID) -> DeliveryDetails:
    """
    Return one delivery with the timeline of its attempts.

    Raises:
        UnknownDeliveryIdError: There is none.
    """
    delivery = find_delivery(session, delivery_id)
    body = session.scalars(select(col(Event.body)).where(col(Event.id) == delivery.event_id)).one()
    of_delivery = select(DeliveryAttempt).where(col(DeliveryAttempt.delivery_id) == delivery_id)
    attempts = session.scalars(of_delivery.order_by(col(DeliveryAttempt.number))).all()
    return DeliveryDetails(
        **delivery.model_dump(include=set(DeliveryView.model_fields)),
        last_answer=_answer(delivery.last_status, delivery.last_error),
        endpoint_url=endpoints.find(session, delivery.endpoint_id).url,
        body_bytes=len(body),
        body_sha256=sha256(body).hexdigest(),
        timeline=[_attempt_view(row) for row in attempts],
    )


def answer_excerpts(session: Session, delivery_id: UUID) -> dict[int, str]:
    """Return what is kept of the answers' bodies, by attempt number; receivers wrote it, so print it with care."""
    rows = session.execute(
        select(col(DeliveryAttempt.number), col(DeliveryAttempt.excerpt)).where(
            col(DeliveryAttempt.delivery_id) == delivery_id, col(DeliveryAttempt.excerpt).is_not(None)
        )
    )
    return {row[0]: row[1] for row in rows}


def _endpoint_views(session: Session, rows: Sequence[Endpoint]) -> list[EndpointView]:
    patterns: dict[UUID, list[str]] = {}
    for pattern, endpoint_id in session.execute(
        select(col(Subscription.pattern), col(Subscription.endpoint_id)).order_by(col(Subscription.pattern))
    ):
        patterns.setdefault(endpoint_id, []).append(pattern)
    counts: dict[UUID, dict[str, int]] = {}
    for endpoint_id, state, count in session.execute(
        select(col(Delivery.endpoint_id), col(Delivery.state), func.count())
        .where(col(Delivery.endpoint_id).in_([row.id for row in rows]))
        .group_by(col(Delivery.endpoint_id), col(Delivery.state))
    ):
        counts.setdefault(endpoint_id, {})[state] = count
    now = utc_now()
    plain = set(EndpointView.model_fields) - {"extra_headers"}
    return [
        EndpointView(
            **row.model_dump(include=plain),
            patterns=patterns.get(row.id, []),
            health=_health(row, now),
            extra_headers=row.header_names or [],
            deliveries=dict.fromkeys(STATES, 0) | counts.get(row.id, {}),
        )
        for row in rows
    ]


def _health(endpoint: Endpoint, now: datetime) -> Health:
    if not endpoint.enabled:
        return "disabled"
    if endpoint.paused_until is not None and endpoint.paused_until > now:
        return "paused"
    return "failing" if endpoint.failing_since is not None else "ok"


def _conditions(wanted: DeliveryFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.endpoint_id is not None:
        conditions.append(col(Delivery.endpoint_id) == wanted.endpoint_id)
    if wanted.state is not None:
        conditions.append(col(Delivery.state) == wanted.state)
    if wanted.event_type is not None:
        conditions.append(col(Delivery.event_type) == wanted.event_type)
    if wanted.since is not None:
        conditions.append(col(Delivery.created_at) >= wanted.since)
    if wanted.until is not None:
        conditions.append(col(Delivery.created_at) < wanted.until)
    return conditions


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BadCursorError("the cursor is not one of a list of deliveries") from error


def _attempt_view(row: DeliveryAttempt) -> AttemptView:
    return AttemptView(
        **row.model_dump(include=set(AttemptView.model_fields) - {"phases"}),
        phases=row.phases or {},
        answer=_answer(row.status, row.error),
        is_success=row.status is not None and row.status // 100 == SUCCESS,
        answer_chars=len(row.excerpt or ""),
    )


def _answer(status: int | None, error: str | None) -> str | None:
    return f"HTTP {status}" if status is not None else error
