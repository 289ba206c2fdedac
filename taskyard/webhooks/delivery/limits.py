"""An endpoint's limits: whether a delivery may be sent now, and how attempts change the endpoint's health."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from taskyard.settings.platform import Settings
from taskyard.webhooks.models import SLOW_AFTER, Delivery, Endpoint

LONGEST_BREAK = timedelta(minutes=30)
SLOTS_SPAN = timedelta(seconds=1)  # deliveries are asked to come so far ahead; at least one interval
FAST = timedelta(seconds=1)  # an attempt that takes longer is a slow one
LEAD = timedelta(milliseconds=100)  # under a rate limit, from the claim to the start: longer than a commit takes
SEND_AHEAD = timedelta(milliseconds=150)  # a worker waits at most so long for its request's start, which is then exact
LATE = timedelta(milliseconds=50)  # a worker that is late by more takes another start: two would be too close together


class LimitWait(NamedTuple):
    """The delivery must not be sent now."""

    until: datetime | None  # its start time; None: until a finished delivery of the endpoint releases it


@dataclass(frozen=True, slots=True)
class EndpointLimiter:
    """The limits of one endpoint, and how many of its deliveries are being sent."""

    endpoint: Endpoint
    in_flight: int
    settings: Settings

    def admit(self, delivery: Delivery, now: datetime) -> datetime | LimitWait:
        """
        Return when the request may start, at most SEND_AHEAD from now, or what the delivery must wait for.

        Nothing polls: a delivery that finds all slots taken, or a pause, waits in SQL until a finished delivery
        releases it, or the sweeper does after the pause. Under a rate limit it is asked to come back at a time of its
        own, if one is near. That time is no right to start: starts lie an interval apart, whoever comes late, so
        neither busy workers nor an outage cause a burst.

        Source: the generic cell rate algorithm (virtual scheduling), ITU-T I.371.
        """
        if self.places(now) == 0:
            return LimitWait(None)
        if self.endpoint.rate_per_second is None:
            return now
        asked_to_come = now if delivery.slot_reserved else self.endpoint.next_slot_at or now
        if max(self.endpoint.next_start_at or now, asked_to_come) - now > SEND_AHEAD:
            return LimitWait(self.reserve(now))
        return self.take_start(now)

    def take_start(self, now: datetime) -> datetime:
        """Take the next start under the endpoint's rate limit, whoever else waits; at least LEAD from now."""
        start = max(now + LEAD, self.endpoint.next_start_at or now)
        self.endpoint.next_start_at = start + self._interval
        self.endpoint.next_slot_at = max(self.endpoint.next_slot_at or start, self.endpoint.next_start_at)
        return start

    def reserve(self, now: datetime) -> datetime | None:
        """Return when the next delivery should come under the endpoint's rate limit; None while enough are to come."""
        if self.endpoint.rate_per_second is None:
            return now
        slot = max(now, self.endpoint.next_slot_at or now, self.endpoint.next_start_at or now)
        if slot - now > self._slots_span:
            return None
        self.endpoint.next_slot_at = slot + self._interval
        return slot

    def places(self, now: datetime) -> int:
        """Return how many more requests may start now, rate limit aside."""
        if self.endpoint.paused_until is not None and self.endpoint.paused_until > now:
            return 0
        return max(0, self.capacity - self.in_flight)

    @property
    def capacity(self) -> int:
        """How many requests may be in flight; one, the probe, while the breaker is open."""
        if self.endpoint.breaker_openings:
            return 1
        return self.endpoint.max_concurrency or self.settings.webhook_max_concurrency

    @property
    def _interval(self) -> timedelta:
        return timedelta(seconds=1 / (self.endpoint.rate_per_second or 1))

    @property
    def _slots_span(self) -> timedelta:
        return LEAD + max(SLOTS_SPAN, self._interval)


def note_speed(endpoint: Endpoint, took: timedelta) -> bool:
    """
    Note how fast the endpoint answered; return whether it has left the slow lane by it.

    Two slow attempts in a row bring it there, one fast answer brings it back: a refusal holds no slot, either.
    """
    was_slow = endpoint.is_slow
    is_fast = took <= FAST
    slow_attempts = 0 if is_fast else min(endpoint.slow_attempts + 1, SLOW_AFTER + 1)
    if slow_attempts != endpoint.slow_attempts:  # else the row stays as it is: most attempts change nothing
        endpoint.slow_attempts = slow_attempts
    return was_slow and is_fast


def note_success(endpoint: Endpoint, now: datetime, *, is_manual: bool = False) -> bool:
    """
    Clear the record of failures; return whether the row changed (a healthy one is written at most once a minute).

    A pause stays: the request that succeeded may have started before another one was told to wait. Only a manual
    attempt, which ignores pauses, proves that the pause is over.
    """
    was_failing = bool(endpoint.consecutive_failures or endpoint.consecutive_exhausted or endpoint.failing_since)
    if not was_failing and endpoint.last_success_at and now - endpoint.last_success_at < timedelta(minutes=1):
        return False
    endpoint.consecutive_failures = endpoint.consecutive_exhausted = endpoint.breaker_openings = 0
    endpoint.failing_since = None
    if is_manual:
        endpoint.paused_until = None
    endpoint.last_success_at = endpoint.updated_at = now
    return True


def note_failure(
    endpoint: Endpoint, started_at: datetime, now: datetime, settings: Settings, asked_pause: timedelta | None
) -> None:
    """
    Count a failed attempt; pause the endpoint if the receiver asked for it or the circuit breaker opens.

    The breaker opens after WEBHOOK_BREAKER_FAILURES failures in a row, and again, for twice as long, when its probe
    fails. Requests that were in flight when it opened are not probes: their failures do not prolong the pause.
    """
    endpoint.consecutive_failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.updated_at = now
    pauses = [asked_pause] if asked_pause else []
    is_probe = endpoint.paused_until is None or endpoint.paused_until <= started_at
    if is_probe if endpoint.breaker_openings else endpoint.consecutive_failures >= settings.webhook_breaker_failures:
        pauses.append(min(LONGEST_BREAK, settings.webhook_breaker_open * 2 ** min(endpoint.breaker_openings, 20)))
        endpoint.breaker_openings += 1
    for pause in pauses:
        endpoint.paused_until = max(endpoint.paused_until or now, now + pause)


def disable_reason(endpoint: Endpoint, now: datetime, settings: Settings) -> str | None:
    """Return why the endpoint must be disabled after a failure, or None."""
    if endpoint.consecutive_exhausted >= settings.webhook_disable_exhausted:
        return f"{endpoint.consecutive_exhausted} deliveries in a row used all their attempts"
    if endpoint.failing_since and now - endpoint.failing_since >= settings.webhook_disable_after:
        return f"no success since {endpoint.failing_since:%Y-%m-%d %H:%M} UTC"
    return None
