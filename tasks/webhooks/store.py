"""The SQL of sending: claim a delivery under a lease, record its attempt, list what is due."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlmodel import Session, col

from config.columns import utc_now
from config.settings import Settings
from tasks.webhooks.answers import Answer
from tasks.webhooks.endpoints import active_secrets, open_vault
from tasks.webhooks.lanes import Lane
from tasks.webhooks.models import OPEN_STATES, Delivery, DeliveryAttempt, Endpoint
from tasks.webhooks.results import AttemptFacts, Scene, Verdict, settle_attempt
from tasks.webhooks.signing import SigningSecret

LEASE_MARGIN = timedelta(seconds=10)  # beyond the total timeout: time to record the attempt


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send one attempt, until the lease ends."""

    delivery: Delivery
    endpoint: Endpoint
    secrets: list[SigningSecret]
    token: UUID
    manual_by: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is nothing to send now."""

    state: str  # of the delivery, "unknown", or "busy"
    retry_at: datetime | None = None  # ask again then; None: never, by this task


class Due(NamedTuple):
    """A delivery to hand to the broker, and the lane it belongs to."""

    delivery_id: UUID
    endpoint_id: UUID


class DeliveryStore:
    """Reads and writes deliveries; every method is one transaction."""

    def __init__(self, open_session: Callable[[], Session], settings: Settings) -> None:
        self._open_session = open_session
        self._settings = settings
        self._vault = open_vault(settings)

    def claim(self, delivery_id: UUID, manual_by: str | None = None) -> Claim | Refusal:
        """
        Take the lease on a delivery that is due and whose lane is free, or say why not.

        The endpoint's row is locked first, so that two claims never count the same free place in a lane. A manual
        attempt ignores the schedule and the delivery's state, not the lease of another worker.
        """
        now = utc_now()
        with self._open_session() as session, session.begin():
            rows = _lock(session, delivery_id)
            if rows is None:
                return Refusal("unknown")
            endpoint, delivery = rows
            refusal = self._refuse(session, delivery, endpoint, now, is_manual=manual_by is not None)
            if refusal is not None:
                return refusal
            self._note_lost_worker(session, delivery)
            delivery.lease_token = uuid4()
            delivery.lease_until = now + self._settings.webhook_total_timeout + LEASE_MARGIN
            secrets = active_secrets(session, self._vault, endpoint.id, now)
            return Claim(delivery, endpoint, secrets, delivery.lease_token, manual_by)

    def record(self, claim: Claim, answer: Answer, started_at: datetime, worker: str) -> Verdict:
        """
        Write the attempt, what follows for the delivery, and the endpoint's health.

        If the lease was lost meanwhile, the attempt is still recorded, and nothing else changes.
        """
        with self._open_session() as session, session.begin():
            rows = _lock(session, claim.delivery.id)
            if rows is None:
                raise LookupError(f"webhook delivery {claim.delivery.id} was deleted while it was being sent")
            facts = AttemptFacts(claim.token, answer, started_at, worker, claim.manual_by)
            return settle_attempt(Scene(session, self._settings, *rows), facts)

    def due(self, limit: int, grace: timedelta) -> list[Due]:
        """
        Return deliveries that are due and were not handed to the broker within ``grace``, and mark them as handed.

        Rows whose lease ran out are among them: a lost worker leaves nothing behind.
        """
        now = utc_now()
        with self._open_session() as session, session.begin():
            found = session.execute(
                select(col(Delivery.id), col(Delivery.endpoint_id))
                .where(
                    col(Delivery.state).in_(OPEN_STATES),
                    col(Delivery.next_attempt_at) <= now,
                    col(Delivery.lease_until).is_(None) | (col(Delivery.lease_until) < now),
                    col(Delivery.enqueued_at).is_(None) | (col(Delivery.enqueued_at) < now - grace),
                )
                .order_by(col(Delivery.next_attempt_at))
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).all()
            if found:
                ids = [row.id for row in found]
                session.execute(update(Delivery).where(col(Delivery.id).in_(ids)).values(enqueued_at=now))
            return [Due(row.id, row.endpoint_id) for row in found]

    def reopen(self, delivery_id: UUID) -> None:
        """Give an exhausted delivery fresh attempts, due now; one in any other state is left alone."""
        with self._open_session() as session, session.begin():
            session.execute(
                update(Delivery)
                .where(col(Delivery.id) == delivery_id, col(Delivery.state) == "exhausted")
                .values(state="retrying", failures=0, next_attempt_at=utc_now(), finished_at=None)
            )

    def _refuse(
        self, session: Session, delivery: Delivery, endpoint: Endpoint, now: datetime, *, is_manual: bool
    ) -> Refusal | None:
        if delivery.lease_until is not None and delivery.lease_until > now:
            return Refusal("busy", delivery.lease_until)
        if is_manual:
            return None
        if delivery.state not in OPEN_STATES:
            return Refusal(delivery.state)
        if not endpoint.enabled:
            delivery.state, delivery.next_attempt_at = "parked", None
            return Refusal("parked")
        if delivery.next_attempt_at is not None and delivery.next_attempt_at > now:
            return Refusal(delivery.state, delivery.next_attempt_at)
        return self._lane_refusal(session, delivery, endpoint, now)

    def _lane_refusal(self, session: Session, delivery: Delivery, endpoint: Endpoint, now: datetime) -> Refusal | None:
        in_flight = session.scalar(
            select(func.count()).where(col(Delivery.endpoint_id) == endpoint.id, col(Delivery.lease_until) > now)
        )
        free_at = Lane(endpoint, in_flight or 0, self._settings).free_at(delivery, now)
        if free_at is None:
            return None
        if delivery.slot_reserved:
            delivery.next_attempt_at = free_at
        return Refusal("busy", free_at)

    def _note_lost_worker(self, session: Session, delivery: Delivery) -> None:
        """A lease that ran out belongs to a worker that died: its attempt may have reached the receiver."""
        if delivery.lease_token is None:
            return
        started = (delivery.lease_until or utc_now()) - self._settings.webhook_total_timeout - LEASE_MARGIN
        delivery.attempts += 1
        session.add(
            DeliveryAttempt(delivery_id=delivery.id, number=delivery.attempts, started_at=started, error="worker_lost")
        )


def _lock(session: Session, delivery_id: UUID) -> tuple[Endpoint, Delivery] | None:
    """Lock the endpoint, then the delivery: everyone takes them in this order, so that nobody waits in a circle."""
    row = session.execute(
        select(Endpoint, Delivery)
        .join(Delivery, col(Delivery.endpoint_id) == col(Endpoint.id))
        .where(col(Delivery.id) == delivery_id)
        .with_for_update()
    ).one_or_none()
    return None if row is None else (row[0], row[1])
