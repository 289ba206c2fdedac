"""The SQL of sending: claim a delivery under a lease, record its attempt, list what is due."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from uuid import UUID, uuid4

from sqlalchemy import bindparam, select, update
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.database.group_commit import GroupCommitter
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.dead_letters import resolve_late
from taskyard.webhooks.delivery.dispatch import DueDelivery, count_in_flight, release_waiting, take_lost, take_waiting
from taskyard.webhooks.delivery.endpoints import active_secrets, open_headers, open_vault
from taskyard.webhooks.delivery.lanes import lane_of_endpoint
from taskyard.webhooks.delivery.limits import EndpointLimiter, LimitWait
from taskyard.webhooks.delivery.transitions import AttemptFacts, AttemptOutcome, LockedRows, settle_attempt
from taskyard.webhooks.event_store import fan_out, pending_fan_outs
from taskyard.webhooks.models import OPEN_STATES, Delivery, DeliveryAttempt, Endpoint, Event
from taskyard.webhooks.signing.schemes import SigningSecret

SECRET_CACHE_SIZE = 10_000  # endpoints whose decrypted secrets a process caches
LEASE_MARGIN = timedelta(seconds=10)  # beyond the total timeout: time to record the attempt


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to send one attempt, until the lease ends."""

    delivery: Delivery
    endpoint: Endpoint
    body: bytes
    content_type: str
    secrets: list[SigningSecret]
    extra_headers: dict[str, str]
    token: UUID
    starts_at: datetime  # of the request, under the endpoint's rate limit
    manual_by: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the delivery cannot be sent now."""

    state: str  # of the delivery; or "unknown", "busy", "slow", or "waiting" for a free slot
    retry_at: datetime | None = None  # ask again then; None: never, by this task
    moved: DueDelivery | None = None  # a "slow" one: to enqueue in the slow lane


@dataclass(frozen=True, slots=True)
class _CachedSecrets:
    """An endpoint's decrypted secrets at one version of its row; a rotation changes the version."""

    version: datetime
    secrets: list[tuple[SigningSecret, datetime | None]]  # newest first, each with its expiry
    extra_headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class _ClaimRequest:
    """One call of `claim`."""

    delivery_id: UUID
    manual_by: str | None
    is_slow_lane: bool


@dataclass(frozen=True, slots=True)
class _RecordRequest:
    """One call of `record`."""

    delivery_id: UUID
    facts: AttemptFacts


class SqlDeliveryStore:
    """
    Reads and writes deliveries; every method is one transaction.

    Concurrent claims of this process share a transaction, and so do records: under load, transactions cost more than
    the statements in them.
    """

    def __init__(self, open_session: Callable[[], Session], settings: Settings) -> None:
        self._open_session = open_session
        self._settings = settings
        self._vault = cache(partial(open_vault, settings))  # only sending needs the keys; sweeps run without
        self._known: dict[UUID, _CachedSecrets] = {}
        self._claims = GroupCommitter(self._claim_all)
        self._records = GroupCommitter(self._record_all)

    def claim(self, delivery_id: UUID, manual_by: str | None = None, *, is_slow_lane: bool = True) -> Claim | Refusal:
        """
        Take the lease on a delivery that is due and whose endpoint has a free slot, or say why not.

        The endpoint's row is locked first, so that two claims never count the same free slot. A manual attempt ignores
        the schedule and the delivery's state, but not the lease of another worker. Outside the slow lane a delivery
        to a slow endpoint is refused, and marked as enqueued there.
        """
        return self._claims.call(_ClaimRequest(delivery_id, manual_by, is_slow_lane))

    def take_start(self, claim: Claim) -> datetime:
        """Take another start under the endpoint's rate limit, for a request that missed its own."""
        with self._open_session() as session, session.begin():
            endpoint = session.get_one(Endpoint, claim.endpoint.id, with_for_update={"key_share": True})
            return EndpointLimiter(endpoint, 0, self._settings).take_start(utc_now())

    def record(self, claim: Claim, facts: AttemptFacts) -> AttemptOutcome:
        """
        Write the attempt, what follows for the delivery, and the endpoint's health.

        If the lease was lost meanwhile, only the attempt is recorded.

        Raises:
            LookupError: The delivery was deleted meanwhile.
        """
        outcome = self._records.call(_RecordRequest(claim.delivery.id, facts))
        if outcome is None:
            raise LookupError(f"webhook delivery {claim.delivery.id} was deleted while it was being sent")
        return outcome

    def _claim_all(self, asked: Sequence[_ClaimRequest]) -> list[Claim | Refusal]:
        with self._open_session() as session, session.begin():
            rows, contents = _lock_with_content(session, {one.delivery_id for one in asked})
            now = utc_now()
            in_flight = count_in_flight(session, {endpoint.id for endpoint, _ in rows.values()}, now)
            return [
                self._claim(LockedRows(session, self._settings, *rows[one.delivery_id]), one, contents, in_flight, now)
                if one.delivery_id in rows
                else Refusal("unknown")
                for one in asked
            ]

    def _claim(
        self,
        locked: LockedRows,
        asked: _ClaimRequest,
        contents: Mapping[str, tuple[bytes, str]],
        in_flight: Counter[UUID],
        now: datetime,
    ) -> Claim | Refusal:
        endpoint, delivery = locked.endpoint, locked.delivery
        if delivery.lease_until is not None and delivery.lease_until > now:
            return Refusal("busy", delivery.lease_until)
        limiter = EndpointLimiter(endpoint, in_flight[endpoint.id], self._settings)
        starts_at = now
        if asked.manual_by is None:
            refusal = _not_now(delivery, endpoint, now)
            if refusal is not None:
                return refusal
            if endpoint.is_slow and not asked.is_slow_lane:
                delivery.enqueued_at = now
                lane = lane_of_endpoint(endpoint)
                return Refusal("slow", moved=DueDelivery(delivery.id, endpoint.id, lane=lane, has_task=False))
            start = limiter.admit(delivery, now)
            if isinstance(start, LimitWait):
                return _postpone(delivery, start)
            starts_at = start
        self._note_lost_worker(locked.session, delivery)
        delivery.lease_token = uuid4()
        delivery.lease_until = starts_at + self._settings.webhook_total_timeout + LEASE_MARGIN
        in_flight[endpoint.id] += 1
        secrets, headers = self._unsealed(locked.session, endpoint, now)
        body, content_type = contents[delivery.event_id]
        return Claim(
            delivery, endpoint, body, content_type, secrets, headers, delivery.lease_token, starts_at, asked.manual_by
        )

    def _record_all(self, sent: Sequence[_RecordRequest]) -> list[AttemptOutcome | None]:
        with self._open_session() as session, session.begin():
            rows = _lock(session, {one.delivery_id for one in sent})
            locked_rows = {key: LockedRows(session, self._settings, *pair) for key, pair in rows.items()}
            outcomes = [
                settle_attempt(locked_rows[one.delivery_id], one.facts) if one.delivery_id in rows else None
                for one in sent
            ]
            endpoints = {endpoint.id: endpoint for endpoint, _ in rows.values()}
            released = release_waiting(session, list(endpoints.values()), self._settings, utc_now())
            return [outcome and outcome.with_released(released.pop(outcome.endpoint_id, ())) for outcome in outcomes]

    def waiting(self, limit: int) -> list[DueDelivery]:
        """Return due deliveries without a task whose endpoint has a free slot; mark them as enqueued."""
        with self._open_session() as session, session.begin():
            return take_waiting(session, self._settings, limit, utc_now())

    def resolve_dead_letters(self) -> int:
        """Discard dead letters that were stored after their delivery had succeeded; return how many."""
        with self._open_session() as session, session.begin():
            return resolve_late(session)

    def pending_fan_outs(self) -> list[str]:
        """Return the ids of events whose deliveries are not all made."""
        with self._open_session() as session:
            return pending_fan_outs(session)

    def fan_out(self, event_id: str) -> list[DueDelivery]:
        """Make the next deliveries of an event; an empty list: all are made."""
        with self._open_session() as session, session.begin():
            return fan_out(session, event_id)

    def lost(self, limit: int, grace: timedelta) -> list[DueDelivery]:
        """Return deliveries that are still due ``grace`` after they were enqueued; mark them as enqueued again."""
        with self._open_session() as session, session.begin():
            return take_lost(session, limit, grace, utc_now())

    def reopen(self, delivery_id: UUID) -> None:
        """Give an exhausted delivery fresh attempts, due now; a delivery in another state stays as it is."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            session.execute(
                update(Delivery)
                .where(col(Delivery.id) == delivery_id, col(Delivery.state) == "exhausted")
                .values(state="retrying", failures=0, next_attempt_at=now, enqueued_at=now, finished_at=None)
                .values(exhausted_run_id=None)
            )

    def _unsealed(
        self, session: Session, endpoint: Endpoint, now: datetime
    ) -> tuple[list[SigningSecret], dict[str, str]]:
        """Return the secrets that sign now, newest first, and the extra headers; cached until the row changes."""
        known = self._known.get(endpoint.id)
        if known is None or known.version != endpoint.updated_at:
            if len(self._known) >= SECRET_CACHE_SIZE:
                self._known.clear()
            secrets = active_secrets(session, self._vault(), endpoint.id, now)
            known = self._known[endpoint.id] = _CachedSecrets(
                endpoint.updated_at, secrets, open_headers(self._vault(), endpoint)
            )
        active = [secret for secret, expires_at in known.secrets if expires_at is None or expires_at > now]
        return active, known.extra_headers

    def _note_lost_worker(self, session: Session, delivery: Delivery) -> None:
        """Record the attempt of a worker that died: an expired lease says that the request may have been sent."""
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


def _postpone(delivery: Delivery, wait: LimitWait) -> Refusal:
    if wait.until is None:
        delivery.enqueued_at, delivery.slot_reserved = None, False
        return Refusal("waiting")
    delivery.enqueued_at = delivery.next_attempt_at = wait.until
    delivery.slot_reserved = True
    return Refusal("busy", wait.until)


def _lock(session: Session, delivery_ids: Collection[UUID]) -> dict[UUID, tuple[Endpoint, Delivery]]:
    """
    Lock each endpoint, then its deliveries, both in the order of their ids, which avoids deadlocks.

    FOR NO KEY UPDATE: an app's open transaction that emitted to this endpoint holds a key-share lock on its row (the
    foreign key) and must not block the endpoint's deliveries.
    """
    found = session.execute(_LOCK, {"delivery_ids": list(delivery_ids)}).all()
    return {delivery.id: (endpoint, delivery) for endpoint, delivery in found}


def _lock_with_content(
    session: Session, delivery_ids: Collection[UUID]
) -> tuple[dict[UUID, tuple[Endpoint, Delivery]], dict[str, tuple[bytes, str]]]:
    """As `_lock`; also return body and content type of each event."""
    found = session.execute(_LOCK_WITH_CONTENT, {"delivery_ids": list(delivery_ids)}).all()
    rows = {delivery.id: (endpoint, delivery) for endpoint, delivery, _, _ in found}
    return rows, {delivery.event_id: (body, content_type) for _, delivery, body, content_type in found}


# Built once: building a statement costs as much as running it.
_LOCK = (
    select(Endpoint, Delivery)
    .join(Delivery, col(Delivery.endpoint_id) == col(Endpoint.id))
    .where(col(Delivery.id).in_(bindparam("delivery_ids", expanding=True)))
    .order_by(col(Endpoint.id), col(Delivery.id))
    .with_for_update(key_share=True, of=(Endpoint, Delivery))
)
_LOCK_WITH_CONTENT = _LOCK.add_columns(col(Event.body), col(Event.content_type)).join(
    Event, col(Event.id) == col(Delivery.event_id)
)
