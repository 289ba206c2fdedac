"""The work of the webhook tasks: send a delivery, sweep what is due."""

import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel

from config.columns import utc_now
from config.settings import Settings
from tasks.errors import PermanentError, RetryAfter, Snooze
from tasks.webhooks.answers import Answer, Timeouts
from tasks.webhooks.clients import WebhookClient
from tasks.webhooks.payloads import DeliverWebhook
from tasks.webhooks.results import Verdict
from tasks.webhooks.signing import SymmetricSecret, predictify_headers, standard_headers
from tasks.webhooks.store import Claim, Due, Refusal

USER_AGENT = "Taskyard-Webhooks/1"
SWEEP_BATCH = 500
SWEEP_MOST = 20_000  # of one sweep; the next one goes on

log = structlog.stdlib.get_logger(__name__)


class DeliveryExhaustedError(PermanentError):
    """All attempts of the delivery are used, or the receiver is gone; it can be redriven."""

    dead_letter_reason = "exhausted"


class UnknownDeliveryError(PermanentError):
    """There is no delivery with this id."""


class Delivered(BaseModel):
    """What one run of the task came to."""

    state: str  # of the delivery
    attempt: int | None = None
    status: int | None = None
    error: str | None = None
    next_attempt_at: datetime | None = None  # the sweeper takes it from here


class Swept(BaseModel):
    """What one sweep did."""

    enqueued: int


class DeliveryStore(Protocol):
    """What the handlers need of SQL; see :class:`tasks.webhooks.store.DeliveryStore`."""

    def claim(self, delivery_id: UUID, manual_by: str | None = None) -> Claim | Refusal:
        """Take the lease on a delivery, or say why not."""

    def record(self, claim: Claim, answer: Answer, started_at: datetime, worker: str) -> Verdict:
        """Write the attempt and what follows from it."""

    def due(self, limit: int, grace: timedelta) -> list[Due]:
        """Return and mark deliveries that are due and have no live task."""


def deliver(
    payload: DeliverWebhook, store: DeliveryStore, http: WebhookClient, settings: Settings, worker: str
) -> Delivered:
    """
    Send the delivery once and record the attempt.

    Runs twice safely: only the holder of the row's lease may send, and the receiver sees the same `webhook-id`.

    Raises:
        Snooze: Its turn has not come: the lane is full or paused, or another worker is sending it.
        RetryAfter: The attempt failed; the next one comes after the schedule's delay.
        DeliveryExhaustedError: It was the last attempt, or the receiver is gone (410).
        UnknownDeliveryError: There is no such delivery.

    Source: Standard Webhooks 1.0.0.
    """
    claim = store.claim(payload.delivery_id, payload.manual_by)
    if isinstance(claim, Refusal):
        return _refused(payload.delivery_id, claim, settings)
    started_at = utc_now()
    timeouts = Timeouts(connect=settings.webhook_connect_timeout, total=settings.webhook_total_timeout)
    answer = http.post(claim.endpoint.url, _headers(claim, started_at), claim.delivery.body, timeouts=timeouts)
    verdict = store.record(claim, answer, started_at, worker)
    log.info(
        "webhook.attempted",
        delivery_id=str(payload.delivery_id),
        event_id=claim.delivery.event_id,
        endpoint_id=str(claim.endpoint.id),
        attempt=verdict.attempt,
        answer=verdict.summary,
        state=verdict.state,
    )
    return _outcome(payload, verdict, settings)


def sweep(store: DeliveryStore, enqueue: Callable[[Iterable[Due]], None], settings: Settings) -> Swept:
    """
    Hand every delivery that is due and has no live task to the broker.

    Runs twice safely: a delivery handed over twice is sent once, since sending needs its lease.
    """
    grace = max(settings.webhook_sweep_interval * 2, timedelta(seconds=1))
    total = 0
    while total < SWEEP_MOST and (batch := store.due(SWEEP_BATCH, grace)):
        enqueue(batch)
        total += len(batch)
    if total:
        log.info("webhook.swept", enqueued=total)
    return Swept(enqueued=total)


def _refused(delivery_id: UUID, refusal: Refusal, settings: Settings) -> Delivered:
    if refusal.state == "unknown":
        raise UnknownDeliveryError(f"no webhook delivery {delivery_id}")
    if refusal.state == "exhausted":
        raise DeliveryExhaustedError(f"webhook delivery {delivery_id} has used all its attempts")
    if refusal.retry_at is None:
        return Delivered(state=refusal.state)
    wait = refusal.retry_at - utc_now()
    if wait > settings.webhook_broker_wait:
        return Delivered(state=refusal.state, next_attempt_at=refusal.retry_at)
    spread = timedelta(seconds=random.uniform(0.01, 0.5))  # noqa: S311 - spreads load, guards nothing
    raise Snooze(max(wait, timedelta(0)) + spread, "its turn has not come")


def _outcome(payload: DeliverWebhook, verdict: Verdict, settings: Settings) -> Delivered:
    if payload.manual_by is None and verdict.state == "exhausted":
        raise DeliveryExhaustedError(
            f"webhook delivery {payload.delivery_id}: {verdict.summary} at attempt {verdict.attempt}, no more to come"
        )
    if verdict.retry_in is not None and verdict.retry_in <= settings.webhook_broker_wait:
        raise RetryAfter(verdict.retry_in, verdict.summary)
    return Delivered(
        state=verdict.state,
        attempt=verdict.attempt,
        status=verdict.status,
        error=verdict.error,
        next_attempt_at=utc_now() + verdict.retry_in if verdict.retry_in is not None else None,
    )


def _headers(claim: Claim, now: datetime) -> dict[str, str]:
    delivery, endpoint = claim.delivery, claim.endpoint
    headers = {**(endpoint.extra_headers or {}), "Content-Type": delivery.content_type, "User-Agent": USER_AGENT}
    if endpoint.sends_standard:
        headers |= standard_headers(claim.secrets, delivery.event_id, int(now.timestamp()), delivery.body)
    symmetric = next((secret for secret in claim.secrets if isinstance(secret, SymmetricSecret)), None)
    if endpoint.sends_predictify and symmetric is not None:
        headers |= predictify_headers(symmetric, delivery.event_type, str(delivery.id), delivery.body)
    return headers
