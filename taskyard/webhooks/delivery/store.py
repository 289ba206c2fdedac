"""The SQL of sending: claim a delivery under a lease, record its attempt, list what is due."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import cast
from uuid import UUID, uuid4

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import QueryableAttribute, defer
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.dispatch import Due, call_next, count_in_flight, take_lost, take_waiting
from taskyard.webhooks.delivery.endpoints import active_secrets, open_vault
from taskyard.webhooks.delivery.group_commit import Together
from taskyard.webhooks.delivery.limits import Lane
from taskyard.webhooks.delivery.transitions import AttemptFacts, Scene, Verdict, settle_attempt
from taskyard.webhooks.http.response import Answer
from taskyard.webhooks.models import OPEN_STATES, Delivery, DeliveryAttempt, Endpoint
from taskyard.webhooks.signing.key_vault import Vault
from taskyard.webhooks.signing.schemes import SigningSecret

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


@dataclass(frozen=True, slots=True)
class _Asked:
    """Somebody wants to send a delivery."""

    delivery_id: UUID
    manual_by: str | None


@dataclass(frozen=True, slots=True)
class _Sent:
    """Somebody has sent a delivery."""

    delivery_id: UUID
    facts: AttemptFacts


class DeliveryStore:
    """
    Reads and writes deliveries; every method is one transaction.

    Claims that threads of this process make at the same moment share one, and so do records: at the rate that matters,
    transactions cost more than what is in them.
    """

    def __init__(self, open_session: Callable[[], Session], settings: Settings) -> None:
        self._open_session = open_session
        self._settings = settings
        self._known: dict[UUID, _KnownSecrets] = {}
        self._claims = Together(self._claim_all)
        self._records = Together(self._record_all)

    @cached_property
    def _vault(self) -> Vault:
        """Only sending needs the keys: a platform without webhooks has none, and its sweeps find nothing to do."""
        return open_vault(self._settings)

    def claim(self, delivery_id: UUID, manual_by: str | None = None) -> Claim | Refusal:
        """
        Take the lease on a delivery that is due and whose lane is free, or say why not.

        The endpoint's row is locked first, so that two claims never count the same free place in a lane. A manual
        attempt ignores the schedule and the delivery's state, not the lease of another worker.
        """
        return self._claims.ask(_Asked(delivery_id, manual_by))

    def record(self, claim: Claim, answer: Answer, started_at: datetime, worker: str) -> Verdict:
        """
        Write the attempt, what follows for the delivery, and the endpoint's health.

        If the lease was lost meanwhile, the attempt is still recorded, and nothing else changes.

        Raises:
            LookupError: The delivery was deleted meanwhile.
        """
        facts = AttemptFacts(claim.token, answer, started_at, worker, claim.manual_by)
        verdict = self._records.ask(_Sent(claim.delivery.id, facts))
        if verdict is None:
            raise LookupError(f"webhook delivery {claim.delivery.id} was deleted while it was being sent")
        return verdict

    def _claim_all(self, asked: Sequence[_Asked]) -> list[Claim | Refusal]:
        with self._open_session() as session, session.begin():
            rows = _lock(session, {one.delivery_id for one in asked})
            now = utc_now()
            in_flight = count_in_flight(session, {endpoint.id for endpoint, _ in rows.values()}, now)
            return [
                self._claim(Scene(session, self._settings, *rows[one.delivery_id]), one, in_flight, now)
                if one.delivery_id in rows
                else Refusal("unknown")
                for one in asked
            ]

    def _claim(self, scene: Scene, asked: _Asked, in_flight: Counter[UUID], now: datetime) -> Claim | Refusal:
        endpoint, delivery = scene.endpoint, scene.delivery
        if delivery.lease_until is not None and delivery.lease_until > now:
            return Refusal("busy", delivery.lease_until)
        lane = Lane(endpoint, in_flight[endpoint.id], self._settings)
        if asked.manual_by is None:
            refusal = _not_now(delivery, endpoint, now) or _no_room(delivery, lane, now)
            if refusal is not None:
                return refusal
        self._note_lost_worker(scene.session, delivery)
        delivery.lease_token = uuid4()
        delivery.lease_until = now + self._settings.webhook_total_timeout + LEASE_MARGIN
        in_flight[endpoint.id] += 1
        secrets = self._secrets(scene.session, endpoint, now)
        return Claim(delivery, endpoint, secrets, delivery.lease_token, asked.manual_by)

    def _record_all(self, sent: Sequence[_Sent]) -> list[Verdict | None]:
        with self._open_session() as session, session.begin():
            rows = _lock(session, {one.delivery_id for one in sent}, with_body=False)
            scenes = {key: Scene(session, self._settings, *pair) for key, pair in rows.items()}
            verdicts = [
                settle_attempt(scenes[one.delivery_id], one.facts) if one.delivery_id in rows else None for one in sent
            ]
            endpoints = {endpoint.id: endpoint for endpoint, _ in rows.values()}
            called = call_next(session, list(endpoints.values()), self._settings, utc_now())
            return [verdict and verdict.calling(called.pop(verdict.endpoint_id, ())) for verdict in verdicts]

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

    def _note_lost_worker(self, session: Session, delivery: Delivery) -> None:
        """A lease that ran out belongs to a worker that died: its attempt may have reached the receiver."""
        if delivery.lease_token is None:
            return
        started = (delivery.lease_until or utc_now()) - self._settings.webhook_total_timeout - LEASE_MARGIN
        delivery.attempts += 1
        session.add(
            DeliveryAttempt(delivery_id=delivery.id, number=delivery.attempts, started_at=started, error="worker_lost")
        )


def _not_now(delivery: Delivery, endpoint: Endpoint, now: datetime) -> Refusal | None:
    if delivery.state not in OPEN_STATES:
        return Refusal(delivery.state)
    if not endpoint.enabled:
        delivery.state, delivery.next_attempt_at = "parked", None
        return Refusal("parked")
    if delivery.next_attempt_at is not None and delivery.next_attempt_at > now:
        return Refusal(delivery.state, delivery.next_attempt_at)
    return None


def _no_room(delivery: Delivery, lane: Lane, now: datetime) -> Refusal | None:
    wait = lane.wait(delivery, now)
    if wait is None:
        return None
    if wait.until is None:
        delivery.enqueued_at, delivery.slot_reserved = None, False
        return Refusal("waiting")
    delivery.enqueued_at = delivery.next_attempt_at = wait.until
    delivery.slot_reserved = True
    return Refusal("busy", wait.until)


def _lock(
    session: Session, delivery_ids: Collection[UUID], *, with_body: bool = True
) -> dict[UUID, tuple[Endpoint, Delivery]]:
    """
    Lock each endpoint, then its deliveries, both in the order of their ids, so that nobody waits in a circle.

    The lock leaves the rows' keys free: an app's transaction that emitted to this endpoint, and may stay open for
    long, holds the key of the endpoint's row, and must not stop its deliveries.
    """
    statement = _LOCK if with_body else _LOCK_WITHOUT_BODY
    found = session.execute(statement, {"delivery_ids": list(delivery_ids)}).all()
    return {delivery.id: (endpoint, delivery) for endpoint, delivery in found}


# Made once: making a statement costs as much as running it.
_LOCK = (
    select(Endpoint, Delivery)
    .join(Delivery, col(Delivery.endpoint_id) == col(Endpoint.id))
    .where(col(Delivery.id).in_(bindparam("delivery_ids", expanding=True)))
    .order_by(col(Endpoint.id), col(Delivery.id))
    .with_for_update(key_share=True)
)
_LOCK_WITHOUT_BODY = _LOCK.options(defer(cast("QueryableAttribute[bytes]", Delivery.body)))
