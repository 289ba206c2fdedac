"""The SQL of sending: claim a delivery under a lease, record its attempt, list what is due."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID, uuid4

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import QueryableAttribute, defer
from sqlmodel import Session, col

from config.columns import utc_now
from config.settings import Settings
from tasks.webhooks.answers import Answer
from tasks.webhooks.endpoints import active_secrets, open_vault
from tasks.webhooks.handover import Due, in_flight, take_lost, take_waiting
from tasks.webhooks.lanes import Lane
from tasks.webhooks.models import OPEN_STATES, Delivery, DeliveryAttempt, Endpoint
from tasks.webhooks.results import AttemptFacts, Scene, Verdict, settle_attempt
from tasks.webhooks.signing import SigningSecret

MOST_KNOWN = 10_000  # endpoints whose secrets a process keeps opened
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

    state: str  # of the delivery; or "unknown", "busy", or "waiting" for the lane to call it
    retry_at: datetime | None = None  # ask again then; None: never, by this task


@dataclass(frozen=True, slots=True)
class _KnownSecrets:
    """An endpoint's opened secrets, as of one version of its row; a rotation changes the row."""

    version: datetime
    secrets: list[tuple[SigningSecret, datetime | None]]  # newest first, with the end of each one's time


class DeliveryStore:
    """Reads and writes deliveries; every method is one transaction."""

    def __init__(self, open_session: Callable[[], Session], settings: Settings) -> None:
        self._open_session = open_session
        self._settings = settings
        self._vault = open_vault(settings)
        self._known: dict[UUID, _KnownSecrets] = {}

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
            return Claim(delivery, endpoint, self._secrets(session, endpoint, now), delivery.lease_token, manual_by)

    def record(self, claim: Claim, answer: Answer, started_at: datetime, worker: str) -> Verdict:
        """
        Write the attempt, what follows for the delivery, and the endpoint's health.

        If the lease was lost meanwhile, the attempt is still recorded, and nothing else changes.
        """
        with self._open_session() as session, session.begin():
            rows = _lock(session, claim.delivery.id, with_body=False)
            if rows is None:
                raise LookupError(f"webhook delivery {claim.delivery.id} was deleted while it was being sent")
            facts = AttemptFacts(claim.token, answer, started_at, worker, claim.manual_by)
            return settle_attempt(Scene(session, self._settings, *rows), facts)

    def waiting(self, limit: int) -> list[Due]:
        """Return deliveries that are due, have no task, and whose lane has room; mark them as handed to the broker."""
        with self._open_session() as session, session.begin():
            return take_waiting(session, self._settings, limit, utc_now())

    def lost(self, limit: int, grace: timedelta) -> list[Due]:
        """Return deliveries that are due though they were handed over before ``grace``; mark them as handed again."""
        with self._open_session() as session, session.begin():
            return take_lost(session, limit, grace, utc_now())

    def reopen(self, delivery_id: UUID) -> None:
        """Give an exhausted delivery fresh attempts, due now; one in any other state is left alone."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            session.execute(
                update(Delivery)
                .where(col(Delivery.id) == delivery_id, col(Delivery.state) == "exhausted")
                .values(state="retrying", failures=0, next_attempt_at=now, enqueued_at=now, finished_at=None)
            )

    def _secrets(self, session: Session, endpoint: Endpoint, now: datetime) -> list[SigningSecret]:
        """Return the secrets that sign now, newest first; read again when the endpoint's row has changed since."""
        known = self._known.get(endpoint.id)
        if known is None or known.version != endpoint.updated_at:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            secrets = active_secrets(session, self._vault, endpoint.id, now)
            known = self._known[endpoint.id] = _KnownSecrets(endpoint.updated_at, secrets)
        return [secret for secret, expires_at in known.secrets if expires_at is None or expires_at > now]

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
        wait = Lane(endpoint, in_flight(session, endpoint.id, now), self._settings).wait(delivery, now)
        if wait is None:
            return None
        if wait.until is None:
            delivery.enqueued_at, delivery.slot_reserved = None, False
            return Refusal("waiting")
        delivery.enqueued_at = delivery.next_attempt_at = wait.until
        delivery.slot_reserved = True
        return Refusal("busy", wait.until)

    def _note_lost_worker(self, session: Session, delivery: Delivery) -> None:
        """A lease that ran out belongs to a worker that died: its attempt may have reached the receiver."""
        if delivery.lease_token is None:
            return
        started = (delivery.lease_until or utc_now()) - self._settings.webhook_total_timeout - LEASE_MARGIN
        delivery.attempts += 1
        session.add(
            DeliveryAttempt(delivery_id=delivery.id, number=delivery.attempts, started_at=started, error="worker_lost")
        )


def _lock(session: Session, delivery_id: UUID, *, with_body: bool = True) -> tuple[Endpoint, Delivery] | None:
    """
    Lock the endpoint, then the delivery: everyone takes them in this order, so that nobody waits in a circle.

    The lock leaves the rows' keys free: an app's transaction that emitted to this endpoint, and may stay open for
    long, holds the key of the endpoint's row, and must not stop its deliveries.
    """
    row = session.execute(_LOCK if with_body else _LOCK_WITHOUT_BODY, {"delivery_id": delivery_id}).one_or_none()
    return None if row is None else (row[0], row[1])


# Made once: making a statement costs as much as running it.
_LOCK = (
    select(Endpoint, Delivery)
    .join(Delivery, col(Delivery.endpoint_id) == col(Endpoint.id))
    .where(col(Delivery.id) == bindparam("delivery_id"))
    .with_for_update(key_share=True)
)
_LOCK_WITHOUT_BODY = _LOCK.options(defer(cast("QueryableAttribute[bytes]", Delivery.body)))
