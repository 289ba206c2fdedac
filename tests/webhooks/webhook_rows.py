"""A webhook_rows for tests of the webhook rows: endpoints, events and attempts in a few words, on a real database."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlmodel import SQLModel, col

from taskyard.database.columns import utc_now
from taskyard.settings.loading import load_settings
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.endpoints import EndpointOptions, register
from taskyard.webhooks.delivery.store import Claim, Refusal, SqlDeliveryStore
from taskyard.webhooks.delivery.transitions import AttemptFacts, AttemptOutcome
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.http.response import Answer, ErrorCode, Phases
from taskyard.webhooks.models import Delivery, DeliveryAttempt, Endpoint, Event
from tests.databases import Database

# One master key for all tests; it protects nothing.
SECRET_KEYS = "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
ENVIRONMENT = {
    "WEBHOOK_SECRET_KEYS": SECRET_KEYS,
    "WEBHOOK_ALLOW_HTTP": "true",
    "WEBHOOK_ALLOW_NETS": "127.0.0.0/8",
    "WEBHOOK_RETRY_JITTER": "0",
}
NOWHERE = "http://127.0.0.1:4999/hook"
PAST = timedelta(hours=1)


class WebhookRows:
    """The store on one database, with settings of the test's choice."""

    def __init__(self, database: Database, **environ: str) -> None:
        self.database = database
        self.settings: Settings = load_settings({**ENVIRONMENT, "DATABASE_URL": database.url, **environ})
        self.store = SqlDeliveryStore(database.session, self.settings)

    def tuned(self, **environ: str) -> "WebhookRows":
        """A webhook_rows on the same database with these settings."""
        return WebhookRows(self.database, **environ)

    def endpoint(self, patterns: Sequence[str] = ("*",), url: str = NOWHERE, **options: Any) -> UUID:
        """Register an endpoint; return its id."""
        with self.database.session() as session, session.begin():
            made, _ = register(session, self.settings, url, patterns, EndpointOptions(**options))
            return made.id

    def emit(self, event_type: str = "market.resolved", data: Any = None, key: str | None = None) -> list[UUID]:
        """Write an event; return the ids of its deliveries."""
        with self.database.session() as session, session.begin():
            return [row.delivery_id for row in add_event(session, self.settings, event_type, data, key).due]

    def emit_many(self, count: int) -> list[UUID]:
        """Write so many events for the one endpoint there is; return their deliveries, oldest first."""
        return [delivery for _ in range(count) for delivery in self.emit()]

    def claim(self, delivery_id: UUID) -> Claim:
        """Claim a delivery that can be claimed."""
        claim = self.store.claim(delivery_id)
        assert isinstance(claim, Claim), claim
        return claim

    def refusal(self, delivery_id: UUID) -> Refusal:
        """Claim a delivery that cannot be claimed."""
        refusal = self.store.claim(delivery_id)
        assert isinstance(refusal, Refusal), "it was claimed"
        return refusal

    def record(self, claim: Claim, answer: Answer, run_id: str = "") -> AttemptOutcome:
        """Record an attempt under this claim that ended just now."""
        return self.store.record(
            claim, AttemptFacts(claim.token, answer, utc_now(), "worker-1", claim.manual_by, run_id)
        )

    def attempt(self, delivery_id: UUID, *answers: Answer) -> AttemptOutcome:
        """Make one attempt per answer, each as soon as the row is free, whatever the schedule says."""
        outcome = None
        for answer in answers:
            self.change(Delivery, delivery_id, next_attempt_at=utc_now())
            outcome = self.record(self.claim(delivery_id), answer)
        assert outcome is not None
        return outcome

    def delivery(self, delivery_id: UUID) -> Delivery:
        """Read a delivery."""
        return self._one(Delivery, delivery_id)

    def body(self, delivery_id: UUID) -> bytes:
        """Read the body that a delivery sends."""
        return self._one(Event, self.delivery(delivery_id).event_id).body

    def lane(self, endpoint_id: UUID) -> Endpoint:
        """Read an endpoint."""
        return self._one(Endpoint, endpoint_id)

    def attempts(self, delivery_id: UUID) -> list[DeliveryAttempt]:
        """Read the attempts of a delivery in order."""
        with self.database.session() as session:
            query = select(DeliveryAttempt).where(col(DeliveryAttempt.delivery_id) == delivery_id)
            return list(session.scalars(query.order_by(col(DeliveryAttempt.number))))

    def deliveries(self, event_type: str | None = None) -> list[Delivery]:
        """Read all deliveries, or those of one type."""
        with self.database.session() as session:
            query = select(Delivery).order_by(col(Delivery.created_at))
            return list(session.scalars(query if event_type is None else query.filter_by(event_type=event_type)))

    def count(self, table: type[SQLModel]) -> int:
        """Count the rows of a table."""
        with self.database.session() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def change(self, table: type[SQLModel], row_id: UUID | str, **values: Any) -> None:
        """Set columns of a row, as time or an accident would."""
        with self.database.session() as session, session.begin():
            session.execute(update(table).filter_by(id=row_id).values(**values))

    def lose_worker(self, delivery_id: UUID) -> None:
        """Let the lease run out, as it does after the end of the worker that holds it."""
        self.change(Delivery, delivery_id, lease_until=utc_now() - timedelta(seconds=1))

    def end_pause(self, endpoint_id: UUID) -> datetime:
        """Let the pause of a lane be over, now; return when it would have ended."""
        until = self.lane(endpoint_id).paused_until
        assert until is not None, "it is not paused"
        self.change(Endpoint, endpoint_id, paused_until=utc_now())
        return until

    def _one[T: SQLModel](self, table: type[T], row_id: Any) -> T:
        with self.database.session() as session:
            found = session.get(table, row_id)
            assert found is not None
            return found


def status(code: int, *, retry_after: str | None = None) -> Answer:
    """The answer of a receiver."""
    return Answer(status=code, retry_after=retry_after, phases=Phases(ttfb_ms=1.0, total_ms=2.0), remote_ip="127.0.0.1")


def no_answer(error: ErrorCode = ErrorCode.CONNECTION_REFUSED) -> Answer:
    """An attempt that got none."""
    return Answer.failed(error)


__all__ = ["ENVIRONMENT", "NOWHERE", "PAST", "SECRET_KEYS", "Event", "WebhookRows", "no_answer", "status"]
