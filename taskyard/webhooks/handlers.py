"""The work of the webhook tasks: send a delivery, sweep what is due."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import sleep
from typing import NoReturn, Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.tasks.errors import PermanentError, RetryAfter, Snooze, Superseded
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.limits import LATE
from taskyard.webhooks.delivery.store import Claim, Refusal
from taskyard.webhooks.delivery.transitions import AttemptFacts, AttemptOutcome
from taskyard.webhooks.http.response import Answer, ErrorCode, Timeouts, mask_echoes
from taskyard.webhooks.http.webhook_client import WebhookClient
from taskyard.webhooks.payloads import DeliverWebhook, FanOutEvent
from taskyard.webhooks.signing.schemes import SymmetricSecret, predictify_headers, standard_headers

USER_AGENT = "Taskyard-Webhooks/1"
SWEEP_BATCH = 500
SWEEP_LIMIT = 20_000  # deliveries in one sweep; the next one takes the rest
STARTS = 4  # that a worker takes for one request before it sends, late or not
EARLY_LIMIT = timedelta(seconds=30)  # a message this much ahead of its delivery is obsolete

log = structlog.stdlib.get_logger(__name__)


class DeliveryExhaustedError(PermanentError):
    """All attempts of the delivery are used, or the receiver is gone; it can be redriven."""

    dead_letter_reason = "exhausted"


class UnknownDeliveryError(PermanentError):
    """There is no delivery with this id."""


class DeliveryReport(BaseModel):
    """The result of one run of the task."""

    state: str  # of the delivery
    attempt: int | None = None
    status: int | None = None
    error: str | None = None


class SweepReport(BaseModel):
    """The result of one sweep."""

    enqueued: int


class FanOutReport(BaseModel):
    """The result of making one event's deliveries."""

    deliveries: int


class DeliveryStore(Protocol):
    """What the handlers need of SQL; implemented by :class:`taskyard.webhooks.delivery.store.SqlDeliveryStore`."""

    def claim(self, delivery_id: UUID, manual_by: str | None = None, *, is_slow_lane: bool = True) -> Claim | Refusal:
        """Take the lease on a delivery, or return why not."""

    def take_start(self, claim: Claim) -> datetime:
        """Take another start under the endpoint's rate limit."""

    def record(self, claim: Claim, facts: AttemptFacts) -> AttemptOutcome:
        """Write the attempt and what follows from it."""

    def waiting(self, limit: int) -> list[DueDelivery]:
        """Return and mark due deliveries without a task, as many as their endpoints have slots."""

    def fan_out(self, event_id: str) -> list[DueDelivery]:
        """Make the next deliveries of an event, in one transaction; an empty list: all are made."""

    def lost(self, limit: int, grace: timedelta) -> list[DueDelivery]:
        """Return and mark deliveries that are still due ``grace`` after they were enqueued."""


@dataclass(frozen=True, slots=True)
class DeliveryDependencies:
    """What :func:`deliver` needs beside its payload."""

    store: DeliveryStore
    http: WebhookClient
    enqueue: Callable[[Iterable[DueDelivery]], None]
    settings: Settings
    worker: str  # recorded with each attempt
    run_id: str = ""  # of the task
    is_slow_lane: bool = True  # the task came from the queue of slow endpoints; others may be sent from there, too
    is_redelivered: bool = False  # an earlier worker of this very message was lost


def deliver(payload: DeliverWebhook, dependencies: DeliveryDependencies) -> DeliveryReport:
    """
    Send the delivery once, record the attempt, and enqueue the deliveries that waited for its slot.

    Runs twice safely: only the holder of the row's lease may send, and the receiver sees the same `webhook-id`.

    Raises:
        Snooze: It has a later start time under a rate limit, or another worker is sending it.
        RetryAfter: The attempt failed; the next one comes after the schedule's delay.
        DeliveryExhaustedError: It was the last attempt, or the receiver is gone (410).
        Superseded: The delivery is not delivered, and another task is to send it: when its endpoint has a free slot,
            from the slow lane, or after a wait that is too long for the broker.
        UnknownDeliveryError: There is no such delivery.

    Source: Standard Webhooks 1.0.0.
    """
    settings = dependencies.settings
    claim = dependencies.store.claim(payload.delivery_id, payload.manual_by, is_slow_lane=dependencies.is_slow_lane)
    if isinstance(claim, Refusal):
        _refused(payload.delivery_id, claim, dependencies)
    started_at = _wait_for_start(claim, dependencies.store)
    timeouts = Timeouts(connect=settings.webhook_connect_timeout, total=settings.webhook_total_timeout)
    headers = _signed_headers(claim, started_at)
    if headers is None:
        answer = Answer.failed(ErrorCode.UNSIGNED)
    else:
        answer = dependencies.http.post(claim.endpoint.url, headers, claim.body, timeouts=timeouts)
        answer = mask_echoes(answer, headers)
    facts = AttemptFacts(claim.token, answer, started_at, dependencies.worker, claim.manual_by, dependencies.run_id)
    outcome = dependencies.store.record(claim, facts)
    log.info(
        "webhook.attempted",
        delivery_id=str(payload.delivery_id),
        event_id=claim.delivery.event_id,
        endpoint_id=str(claim.endpoint.id),
        attempt=outcome.attempt,
        answer=outcome.summary,
        state=outcome.state,
    )
    if outcome.released:
        dependencies.enqueue(outcome.released)
    return _outcome(payload, outcome, settings)


def fan_out(
    payload: FanOutEvent, store: DeliveryStore, enqueue: Callable[[Iterable[DueDelivery]], None]
) -> FanOutReport:
    """
    Make and enqueue the deliveries of an event, batch by batch.

    Runs twice safely: an endpoint gets one delivery of an event.
    """
    total = 0
    while batch := store.fan_out(payload.event_id):
        enqueue(batch)
        total += len(batch)
    log.info("webhook.fanned_out", event_id=payload.event_id, deliveries=total)
    return FanOutReport(deliveries=total)


def sweep(store: DeliveryStore, enqueue: Callable[[Iterable[DueDelivery]], None], settings: Settings) -> SweepReport:
    """
    Enqueue every delivery that is due and has no live task.

    Runs twice safely: a delivery enqueued twice is sent once, since sending needs its lease.
    """
    grace = max(settings.webhook_sweep_interval * 2, timedelta(seconds=1))
    first = store.waiting(SWEEP_LIMIT)
    enqueue(first)
    total = len(first)
    while total < SWEEP_LIMIT and (batch := store.lost(SWEEP_BATCH, grace)):
        enqueue(batch)
        total += len(batch)
    if total:
        log.info("webhook.swept", enqueued=total)
    return SweepReport(enqueued=total)


def _wait_for_start(claim: Claim, store: DeliveryStore) -> datetime:
    """Wait until the request may start, at most SEND_AHEAD; a busy worker that misses it takes another start."""
    starts_at = claim.starts_at
    for _ in range(STARTS):
        sleep(max(0.0, (starts_at - utc_now()).total_seconds()))
        if claim.endpoint.rate_per_second is None or utc_now() - starts_at <= LATE:
            break
        starts_at = store.take_start(claim)
    return utc_now()


def _refused(delivery_id: UUID, refusal: Refusal, dependencies: DeliveryDependencies) -> NoReturn:
    if refusal.state == "unknown":
        raise UnknownDeliveryError(f"no webhook delivery {delivery_id}")
    if (
        refusal.state == "exhausted" and dependencies.is_redelivered
    ):  # else another message used the last attempt and reported it
        raise DeliveryExhaustedError(f"webhook delivery {delivery_id} has used all its attempts")
    if refusal.moved is not None:
        dependencies.enqueue([refusal.moved])
    if refusal.retry_at is None:
        raise Superseded(f"nothing was sent: the delivery is {refusal.state}")
    wait = max(refusal.retry_at - utc_now(), timedelta(0))
    is_current = refusal.state == "busy" or wait < EARLY_LIMIT
    if not is_current or wait > dependencies.settings.webhook_broker_wait:
        raise Superseded(
            f"nothing was sent: the delivery is {refusal.state} until {refusal.retry_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    raise Snooze(wait, "not due yet")


def _outcome(payload: DeliverWebhook, outcome: AttemptOutcome, settings: Settings) -> DeliveryReport:
    if payload.manual_by is None and outcome.state == "exhausted":
        raise DeliveryExhaustedError(
            f"webhook delivery {payload.delivery_id}: {outcome.summary} at attempt {outcome.attempt}, no attempts left"
        )
    if outcome.retry_in is not None and outcome.retry_in <= settings.webhook_broker_wait:
        raise RetryAfter(outcome.retry_in, outcome.summary)
    if outcome.state != "delivered":
        raise Superseded(f"{outcome.summary} at attempt {outcome.attempt}: the delivery is {outcome.state}")
    return DeliveryReport(state=outcome.state, attempt=outcome.attempt, status=outcome.status, error=outcome.error)


def _signed_headers(claim: Claim, now: datetime) -> dict[str, str] | None:
    """Return the request's headers; None: no secret of the endpoint signs any of them."""
    delivery, endpoint = claim.delivery, claim.endpoint
    signatures: dict[str, str] = {}
    if endpoint.sends_standard and claim.secrets:
        signatures |= standard_headers(claim.secrets, delivery.event_id, int(now.timestamp()), claim.body)
    shared = next((secret for secret in claim.secrets if isinstance(secret, SymmetricSecret)), None)
    if endpoint.sends_predictify and shared is not None:
        signatures |= predictify_headers(shared, delivery.event_type, str(delivery.id), claim.body)
    if not signatures:
        return None
    plain = {"Content-Type": claim.content_type, "User-Agent": USER_AGENT}
    return {**claim.extra_headers, **plain, **signatures}
