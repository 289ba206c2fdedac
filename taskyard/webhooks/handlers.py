"""The work of the webhook tasks: send a delivery, sweep what is due."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.tasks.errors import PermanentError, RetryAfter, Snooze
from taskyard.webhooks.delivery.dispatch import Due
from taskyard.webhooks.delivery.store import Claim, Refusal
from taskyard.webhooks.delivery.transitions import Verdict
from taskyard.webhooks.http.client import WebhookClient
from taskyard.webhooks.http.response import Answer, Timeouts
from taskyard.webhooks.payloads import DeliverWebhook
from taskyard.webhooks.signing.schemes import SymmetricSecret, predictify_headers, standard_headers

USER_AGENT = "Taskyard-Webhooks/1"
SWEEP_BATCH = 500
SWEEP_MOST = 20_000  # of one sweep; the next one goes on
OWN_MESSAGE = timedelta(seconds=30)  # a message that comes earlier before its time than this belongs to nobody

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
    """What the handlers need of SQL; see :class:`taskyard.webhooks.delivery.store.DeliveryStore`."""

    def claim(self, delivery_id: UUID, manual_by: str | None = None) -> Claim | Refusal:
        """Take the lease on a delivery, or say why not."""

    def record(self, claim: Claim, answer: Answer, started_at: datetime, worker: str) -> Verdict:
        """Write the attempt and what follows from it."""

    def waiting(self, limit: int) -> list[Due]:
        """Return and mark deliveries that are due and have no task, as many as their lanes hold."""

    def lost(self, limit: int, grace: timedelta) -> list[Due]:
        """Return and mark deliveries that were handed over and are still due after ``grace``."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What :func:`deliver` works with."""

    store: DeliveryStore
    http: WebhookClient
    enqueue: Callable[[Iterable[Due]], None]
    settings: Settings
    worker: str  # recorded with each attempt
    is_redelivered: bool = False  # an earlier worker of this very message was lost


def deliver(payload: DeliverWebhook, tools: Tools) -> Delivered:
    """
    Send the delivery once, record the attempt, and call those that waited for its place in the lane.

    Runs twice safely: only the holder of the row's lease may send, and the receiver sees the same `webhook-id`.

    Raises:
        Snooze: Its turn has not come: it has a slot of its own under a rate limit, or another worker is sending it.
        RetryAfter: The attempt failed; the next one comes after the schedule's delay.
        DeliveryExhaustedError: It was the last attempt, or the receiver is gone (410).
        UnknownDeliveryError: There is no such delivery.

    Source: Standard Webhooks 1.0.0.
    """
    settings = tools.settings
    claim = tools.store.claim(payload.delivery_id, payload.manual_by)
    if isinstance(claim, Refusal):
        return _refused(payload.delivery_id, claim, tools)
    started_at = utc_now()
    timeouts = Timeouts(connect=settings.webhook_connect_timeout, total=settings.webhook_total_timeout)
    answer = tools.http.post(claim.endpoint.url, _headers(claim, started_at), claim.delivery.body, timeouts=timeouts)
    verdict = tools.store.record(claim, answer, started_at, tools.worker)
    log.info(
        "webhook.attempted",
        delivery_id=str(payload.delivery_id),
        event_id=claim.delivery.event_id,
        endpoint_id=str(claim.endpoint.id),
        attempt=verdict.attempt,
        answer=verdict.summary,
        state=verdict.state,
    )
    if verdict.called:
        tools.enqueue(verdict.called)
    return _outcome(payload, verdict, settings)


def sweep(store: DeliveryStore, enqueue: Callable[[Iterable[Due]], None], settings: Settings) -> Swept:
    """
    Hand every delivery that is due and has no live task to the broker.

    Runs twice safely: a delivery handed over twice is sent once, since sending needs its lease.
    """
    grace = max(settings.webhook_sweep_interval * 2, timedelta(seconds=1))
    first = store.waiting(SWEEP_MOST)
    enqueue(first)
    total = len(first)
    while total < SWEEP_MOST and (batch := store.lost(SWEEP_BATCH, grace)):
        enqueue(batch)
        total += len(batch)
    if total:
        log.info("webhook.swept", enqueued=total)
    return Swept(enqueued=total)


def _refused(delivery_id: UUID, refusal: Refusal, tools: Tools) -> Delivered:
    if refusal.state == "unknown":
        raise UnknownDeliveryError(f"no webhook delivery {delivery_id}")
    if refusal.state == "exhausted" and tools.is_redelivered:  # else another message used the last attempt, and said so
        raise DeliveryExhaustedError(f"webhook delivery {delivery_id} has used all its attempts")
    if refusal.retry_at is None:
        return Delivered(state=refusal.state)
    wait = max(refusal.retry_at - utc_now(), timedelta(0))
    is_own = refusal.state == "busy" or wait < OWN_MESSAGE
    if not is_own or wait > tools.settings.webhook_broker_wait:
        return Delivered(state=refusal.state, next_attempt_at=refusal.retry_at)
    raise Snooze(wait, "its turn has not come")


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
