"""An endpoint's lane: whether a delivery may be sent now, and what an attempt does to the endpoint's health."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from config.settings import Settings
from tasks.webhooks.models import Delivery, Endpoint

LONGEST_BREAK = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Lane:
    """The limits of one endpoint, and how many of its deliveries are being sent."""

    endpoint: Endpoint
    in_flight: int
    settings: Settings

    def free_at(self, delivery: Delivery, now: datetime) -> datetime | None:
        """
        Return None if the delivery may be sent now, else the moment to ask again.

        A delivery that meets the rate limit reserves the next free slot: it comes back once, at its own turn, however
        many wait.
        """
        if self.endpoint.paused_until and self.endpoint.paused_until > now:
            return self.endpoint.paused_until
        if self.in_flight >= self.capacity:
            is_probing = self.endpoint.breaker_openings > 0  # what comes of it is known by its deadline
            return now + (self.settings.webhook_total_timeout if is_probing else timedelta(seconds=1))
        if self.endpoint.rate_per_second is None or delivery.slot_reserved:
            return None
        slot = max(now, self.endpoint.next_slot_at or now)
        self.endpoint.next_slot_at = slot + timedelta(seconds=1 / self.endpoint.rate_per_second)
        if slot <= now:
            return None
        delivery.slot_reserved = True
        return slot

    @property
    def capacity(self) -> int:
        """How many requests may be in flight; one probe after the breaker opened, until it succeeds."""
        if self.endpoint.breaker_openings:
            return 1
        return self.endpoint.max_concurrency or self.settings.webhook_max_concurrency


def note_success(endpoint: Endpoint, now: datetime) -> bool:
    """Clear the record of failures; return whether the row changed (a healthy one is written at most once a minute)."""
    was_failing = bool(endpoint.consecutive_failures or endpoint.consecutive_exhausted or endpoint.failing_since)
    if not was_failing and endpoint.last_success_at and now - endpoint.last_success_at < timedelta(minutes=1):
        return False
    endpoint.consecutive_failures = endpoint.consecutive_exhausted = endpoint.breaker_openings = 0
    endpoint.failing_since = endpoint.paused_until = None
    endpoint.last_success_at = endpoint.updated_at = now
    return True


def note_failure(endpoint: Endpoint, now: datetime, settings: Settings, asked_pause: timedelta | None) -> None:
    """Count a failed attempt; pause the lane if the receiver asked for it or the circuit breaker opens."""
    endpoint.consecutive_failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    endpoint.updated_at = now
    pauses = [asked_pause] if asked_pause else []
    probe_failed = endpoint.breaker_openings > 0
    if probe_failed or endpoint.consecutive_failures >= settings.webhook_breaker_failures:
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
