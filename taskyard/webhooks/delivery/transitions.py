"""Apply the outcome of an attempt to its delivery and endpoint; one function per transition."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel import Session

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.classification import (
    AttemptResult,
    classify,
    next_delay,
    parse_retry_after,
    pause_asked,
)
from taskyard.webhooks.delivery.dead_letters import resolve
from taskyard.webhooks.delivery.dispatch import DueDelivery, requeue_waiting
from taskyard.webhooks.delivery.endpoints import disable
from taskyard.webhooks.delivery.limits import disable_reason, note_failure, note_speed, note_success
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.event_types import ENDPOINT_DISABLED
from taskyard.webhooks.http.response import Answer
from taskyard.webhooks.models import OPEN_STATES, Delivery, DeliveryAttempt, Endpoint


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One attempt as it was made."""

    token: UUID  # of the lease under which it was made
    answer: Answer
    started_at: datetime
    worker: str
    manual_by: str | None
    run_id: str = ""  # of the task; its dead letter if this was the last attempt


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The state of the delivery after an attempt was recorded."""

    endpoint_id: UUID
    state: str  # of the delivery
    attempt: int  # number of the attempt that was recorded
    status: int | None
    error: str | None
    retry_in: timedelta | None  # None: no attempt is to come
    released: tuple[DueDelivery, ...] = ()  # waiting deliveries to enqueue once this is committed

    @property
    def summary(self) -> str:
        """Return a short text such as "HTTP 503", without anything that the receiver sent."""
        return f"HTTP {self.status}" if self.status is not None else str(self.error)

    def with_released(self, others: Sequence[DueDelivery]) -> "AttemptOutcome":
        """Return a copy that releases these deliveries, too."""
        return replace(self, released=(*self.released, *others)) if others else self


@dataclass(frozen=True, slots=True)
class LockedRows:
    """The rows that one attempt changes; the caller's transaction has locked them."""

    session: Session
    settings: Settings
    endpoint: Endpoint
    delivery: Delivery
    released: list[DueDelivery] = field(default_factory=list)


def settle_attempt(locked: LockedRows, facts: AttemptFacts) -> AttemptOutcome:
    """Record the attempt and update delivery and endpoint, all in the caller's transaction."""
    delivery, answer, now = locked.delivery, facts.answer, utc_now()
    delivery.attempts += 1
    retry_in: timedelta | None = None
    if delivery.lease_token == facts.token:
        delivery.lease_token = delivery.lease_until = None
        delivery.slot_reserved = False
        delivery.last_status, delivery.last_error = answer.status, answer.error
        retry_in = _move_on(locked, facts, now)
    locked.session.add(_attempt_row(delivery, facts, now + retry_in if retry_in is not None else None))
    return AttemptOutcome(
        delivery.endpoint_id,
        delivery.state,
        delivery.attempts,
        answer.status,
        answer.error,
        retry_in,
        tuple(locked.released),
    )


def _move_on(locked: LockedRows, facts: AttemptFacts, now: datetime) -> timedelta | None:
    settings, endpoint, delivery = locked.settings, locked.endpoint, locked.delivery
    codes = {int(code) for code in settings.webhook_terminal_codes}
    took = timedelta(milliseconds=facts.answer.phases.total_ms)
    if note_speed(endpoint, took):
        requeue_waiting(locked.session, endpoint.id, now)
    result = classify(facts.answer, delivery.failures + 1, codes)
    if result is AttemptResult.SUCCESS:
        _deliver(delivery, now)
        manual = f" by {facts.manual_by}" if facts.manual_by else ""
        resolve(locked.session, [delivery], f"delivered at attempt {delivery.attempts}{manual}")
        note_success(endpoint, now, is_manual=facts.manual_by is not None)
        return None
    asked = pause_asked(facts.answer, now, settings.webhook_retry_after_cap)
    note_failure(endpoint, facts.started_at, now, settings, asked)
    if result is AttemptResult.GONE:
        _exhaust(delivery, endpoint, facts, now)
        _disable(locked, "the receiver answered 410 Gone")
        return None
    if facts.manual_by is not None:  # an extra attempt: the schedule stays as it was
        return None
    delivery.failures += 1
    if not endpoint.enabled:  # disabled while this attempt was under way, and the delivery parked with the others
        return None
    retry_in = None if result is AttemptResult.TERMINAL else _retry_delay(locked, facts.answer, result, now)
    if retry_in is None:
        _exhaust(delivery, endpoint, facts, now)
    else:
        _retry(delivery, now + retry_in, stays_in_broker=retry_in <= settings.webhook_broker_wait)
    reason = disable_reason(endpoint, now, settings)
    if reason is not None:
        _disable(locked, reason)
    return retry_in if delivery.state == "retrying" else None


def _retry_delay(locked: LockedRows, answer: Answer, result: AttemptResult, now: datetime) -> timedelta | None:
    settings = locked.settings
    if answer.is_stale and locked.delivery.failures == 1:
        return timedelta(0)  # servers close idle connections at any moment; only the first time proves nothing else
    schedule = [timedelta(seconds=wait) for wait in locked.endpoint.retry_delays or ()]
    asked = parse_retry_after(answer.retry_after, now, settings.webhook_retry_after_cap) or timedelta(0)
    floor = settings.webhook_throttle_floor if result is AttemptResult.RETRY_WITH_FLOOR else timedelta(0)
    return next_delay(
        locked.delivery.failures,
        schedule or settings.webhook_retry_delays,
        at_least=max(asked, floor),
        jitter=settings.webhook_retry_jitter,
    )


def _deliver(delivery: Delivery, now: datetime) -> None:
    delivery.state, delivery.next_attempt_at, delivery.finished_at = "delivered", None, now


def _retry(delivery: Delivery, at: datetime, *, stays_in_broker: bool) -> None:
    delivery.state, delivery.next_attempt_at = "retrying", at
    delivery.enqueued_at = at if stays_in_broker else None  # None: the sweeper enqueues it when it is due


def _exhaust(delivery: Delivery, endpoint: Endpoint, facts: AttemptFacts, now: datetime) -> None:
    if delivery.state not in OPEN_STATES:
        return
    delivery.state, delivery.next_attempt_at, delivery.finished_at = "exhausted", None, now
    if facts.manual_by is None:  # else the task makes no dead letter
        delivery.exhausted_run_id = facts.run_id or None
    endpoint.consecutive_exhausted += 1


def _disable(locked: LockedRows, reason: str) -> None:
    endpoint = locked.endpoint
    if not endpoint.enabled:
        return
    parked = disable(locked.session, endpoint, reason)
    facts = {"endpoint_id": str(endpoint.id), "url": endpoint.url, "reason": reason, "parked_deliveries": parked}
    locked.released.extend(add_event(locked.session, locked.settings, ENDPOINT_DISABLED, facts).due)


def _attempt_row(delivery: Delivery, facts: AttemptFacts, next_attempt_at: datetime | None) -> DeliveryAttempt:
    answer = facts.answer
    phases: dict[str, Any] = {
        "dns_ms": answer.phases.dns_ms,
        "connect_ms": answer.phases.connect_ms,
        "ttfb_ms": answer.phases.ttfb_ms,
    }
    return DeliveryAttempt(
        delivery_id=delivery.id,
        number=delivery.attempts,
        trigger="manual" if facts.manual_by else "schedule",
        by=facts.manual_by,
        started_at=facts.started_at,
        total_ms=round(answer.phases.total_ms),
        phases={name: round(value, 2) for name, value in phases.items() if value is not None},
        remote_ip=answer.remote_ip,
        status=answer.status,
        error=answer.error,
        excerpt=answer.excerpt or None,
        truncated=answer.truncated,
        next_attempt_at=next_attempt_at,
        worker=facts.worker,
    )
