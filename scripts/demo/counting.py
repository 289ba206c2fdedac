"""What the demo came to: read from the database, from the receivers, and compared with what it must be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import quantiles
from uuid import UUID

from sqlalchemy import case, func, select
from sqlmodel import Session, col

from scripts.demo.environment import ATTEMPTS
from scripts.demo.receivers import FAILURES, Subscriber
from taskyard.history.models import DeadLetter, Run
from taskyard.webhooks.models import FINAL_STATES, Delivery, DeliveryAttempt

# name of the subscriber -> (delivered, retried, exhausted, attempts), each per event
MUST_BE: Mapping[str, tuple[int, int, int, int]] = {
    "good": (1, 0, 0, 1),
    "fails twice": (1, 1, 0, 1 + FAILURES),
    "always down": (0, 1, 1, ATTEMPTS),
}


@dataclass(frozen=True, slots=True)
class Tally:
    """The deliveries to one subscriber."""

    name: str
    delivered: int
    retried: int  # deliveries that needed more than one attempt
    exhausted: int
    attempts: int  # rows in webhook_attempts
    requests: int  # that the receiver got
    faults: Sequence[str]  # requests whose signature an independent verifier refuses
    latencies: Sequence[timedelta]  # from just before `emit` to the first request of each event

    @property
    def p50(self) -> timedelta | None:
        """The median latency; None for fewer than two events."""
        return self._percentile(50)

    @property
    def p99(self) -> timedelta | None:
        """99 of 100 events came at least as fast; None for fewer than two events."""
        return self._percentile(99)

    def differences(self, events: int) -> list[str]:
        """Say what is not as it must be after ``events`` events; empty when all is."""
        wanted = [share * events for share in MUST_BE[self.name]]
        counted = [self.delivered, self.retried, self.exhausted, self.attempts]
        words = ("delivered", "retried", "exhausted", "attempts")
        found = [
            f"{self.name}: {count} {word}, expected {want}"
            for word, count, want in zip(words, counted, wanted, strict=True)
            if count != want
        ]
        if self.requests != self.attempts:
            found.append(f"{self.name}: {self.requests} requests arrived, {self.attempts} attempts are recorded")
        if len(self.latencies) != events:
            found.append(f"{self.name}: {len(self.latencies)} of {events} events arrived")
        return found + [f"{self.name}: signature refused for {fault}" for fault in self.faults[:3]]

    def _percentile(self, percent: int) -> timedelta | None:
        if len(self.latencies) < 2:  # noqa: PLR2004 - a quantile needs two
            return None
        return quantiles(self.latencies_in_seconds(), n=100, method="inclusive")[percent - 1] * timedelta(seconds=1)

    def latencies_in_seconds(self) -> list[float]:
        """Return the latencies as numbers."""
        return [latency.total_seconds() for latency in self.latencies]


def settled(session: Session) -> int:
    """Return how many deliveries are delivered or exhausted."""
    return session.scalar(select(func.count()).where(col(Delivery.state).in_(FINAL_STATES))) or 0


def dead_letters(session: Session) -> int:
    """Return how many dead letters wait for an operator."""
    return session.scalar(select(func.count()).where(col(DeadLetter.state) == "open")) or 0


def runs_by_state(session: Session) -> dict[str, int]:
    """Return how many runs of `webhooks.deliver` the audit has in each state."""
    rows = session.execute(
        select(col(Run.state), func.count()).where(col(Run.task) == "webhooks.deliver").group_by(col(Run.state))
    )
    return {row[0]: row[1] for row in rows}


def tally(session: Session, subscriber: Subscriber, emitted: Mapping[str, datetime]) -> Tally:
    """Count the deliveries to one subscriber; ``emitted`` tells when each event was emitted, by its id."""
    endpoint_id = UUID(subscriber.endpoint_id)
    delivered, retried, exhausted = session.execute(
        select(
            func.coalesce(func.sum(case((col(Delivery.state) == "delivered", 1), else_=0)), 0),
            func.coalesce(func.sum(case((col(Delivery.attempts) > 1, 1), else_=0)), 0),
            func.coalesce(func.sum(case((col(Delivery.state) == "exhausted", 1), else_=0)), 0),
        ).where(col(Delivery.endpoint_id) == endpoint_id)
    ).one()
    attempts = session.scalar(
        select(func.count())
        .select_from(DeliveryAttempt)
        .join(Delivery, col(Delivery.id) == col(DeliveryAttempt.delivery_id))
        .where(col(Delivery.endpoint_id) == endpoint_id)
    )
    first = subscriber.first_receipts()
    return Tally(
        subscriber.name,
        delivered=delivered,
        retried=retried,
        exhausted=exhausted,
        attempts=attempts or 0,
        requests=len(subscriber.receiver.requests),
        faults=subscriber.bad_signatures(),
        latencies=[first[event_id] - at for event_id, at in emitted.items() if event_id in first],
    )
