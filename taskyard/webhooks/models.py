"""Tables of the webhooks: endpoints, what they subscribed to, events, deliveries and their attempts."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now
from taskyard.database.tables import TaskyardTable

OPEN_STATES = ("pending", "retrying")  # an attempt is still to come
FINAL_STATES = ("delivered", "exhausted")
SLOW_AFTER = 2  # slow attempts in a row; an endpoint that never answered may prove to be slow, and starts there
STATES = (*OPEN_STATES, "parked", *FINAL_STATES)  # parked: its endpoint is disabled


def moment(*, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC; one that must not be empty starts as now."""
    if nullable:
        return Field(default=None, sa_column=Column(UtcDateTime))
    return Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))


class Endpoint(TaskyardTable, table=True):
    """A subscriber's URL, with its limits and its health."""

    __tablename__ = "taskyard_webhook_endpoints"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    url: str
    description: str = ""
    enabled: bool = True
    disabled_reason: str | None = None
    disabled_at: datetime | None = moment()
    sends_standard: bool = True  # webhook-id, webhook-timestamp, webhook-signature
    sends_predictify: bool = True  # X-Predictify-Signature, -Event, -Delivery
    header_names: list[str] | None = Field(default=None, sa_column=Column(JsonColumn))  # of the extra headers
    sealed_headers: str | None = None  # names and values, encrypted as secrets are: a value may be a credential
    max_concurrency: int | None = None  # requests in flight; None: the setting WEBHOOK_MAX_CONCURRENCY
    rate_per_second: float | None = None  # None: no limit
    retry_delays: list[float] | None = Field(default=None, sa_column=Column(JsonColumn))  # seconds; None: the setting
    consecutive_failures: int = 0  # attempts
    consecutive_exhausted: int = 0  # deliveries
    failing_since: datetime | None = moment()  # first failure after the last success
    last_success_at: datetime | None = moment()
    breaker_openings: int = 0  # in a row; 0: closed
    paused_until: datetime | None = moment()  # by the breaker, or because the receiver asked for a pause
    next_slot_at: datetime | None = moment()  # rate limit: the first moment at which no delivery was asked to come
    next_start_at: datetime | None = moment()  # rate limit: no request may start before
    slow_attempts: int = SLOW_AFTER  # in a row; from SLOW_AFTER on it is served in the slow lane
    created_at: datetime = moment(nullable=False)
    updated_at: datetime = moment(nullable=False)

    @property
    def is_slow(self) -> bool:
        """Whether it was slow lately, or has never answered."""
        return self.slow_attempts >= SLOW_AFTER


class Subscription(TaskyardTable, table=True):
    """An event pattern that an endpoint wants: a type, ``prefix.*`` or ``*``."""

    __tablename__ = "taskyard_webhook_subscriptions"

    pattern: str = Field(primary_key=True, max_length=255)
    endpoint_id: UUID = Field(primary_key=True, foreign_key="taskyard_webhook_endpoints.id", ondelete="CASCADE")


class Secret(TaskyardTable, table=True):
    """A signing secret, encrypted; during a rotation two are active and the newest comes first."""

    __tablename__ = "taskyard_webhook_secrets"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    endpoint_id: UUID = Field(foreign_key="taskyard_webhook_endpoints.id", ondelete="CASCADE", index=True)
    ciphertext: str
    created_at: datetime = moment(nullable=False)
    expires_at: datetime | None = moment()


class Event(TaskyardTable, table=True):
    """Something that happened in the app, as it was emitted; all deliveries send its body."""

    __tablename__ = "taskyard_webhook_events"
    __table_args__ = (
        Index("ix_taskyard_webhook_events_created", "created_at"),
        Index(
            "ix_taskyard_webhook_events_fan_out",
            "created_at",
            sqlite_where=text("needs_fan_out"),
            postgresql_where=text("needs_fan_out"),
        ),
    )

    id: str = Field(primary_key=True, max_length=64)  # the webhook-id that every receiver sees
    type: str = Field(max_length=255, index=True)
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    content_type: str = Field(default="application/json", max_length=255)
    idempotency_key: str | None = Field(default=None, max_length=255, unique=True)
    content_sha256: str = Field(default="", max_length=64)  # of type and data: a key that is used again must match it
    needs_fan_out: bool = False  # its deliveries are not all made: a task does it
    created_at: datetime = moment(nullable=False)


class Delivery(TaskyardTable, table=True):
    """One event on its way to one endpoint, until it arrives or all attempts are used."""

    __tablename__ = "taskyard_webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("event_id", "endpoint_id", name="uq_taskyard_webhook_deliveries_event_endpoint"),
        Index("ix_taskyard_webhook_deliveries_due", "state", "next_attempt_at"),
        Index("ix_taskyard_webhook_deliveries_lane", "endpoint_id", "lease_until"),
        Index("ix_taskyard_webhook_deliveries_newest", "endpoint_id", "created_at"),
        Index("ix_taskyard_webhook_deliveries_finished", "finished_at"),
        Index(
            "ix_taskyard_webhook_deliveries_dead_letter",
            "state",
            sqlite_where=text("exhausted_run_id IS NOT NULL"),
            postgresql_where=text("exhausted_run_id IS NOT NULL"),
        ),
        Index(
            "ix_taskyard_webhook_deliveries_waiting",
            "endpoint_id",
            "next_attempt_at",
            sqlite_where=text("enqueued_at IS NULL"),
            postgresql_where=text("enqueued_at IS NULL"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    event_id: str = Field(foreign_key="taskyard_webhook_events.id", max_length=64)
    endpoint_id: UUID = Field(foreign_key="taskyard_webhook_endpoints.id")
    event_type: str = Field(max_length=255)
    state: str = Field(default="pending", max_length=16)  # one of STATES
    attempts: int = 0  # rows in webhook_attempts
    failures: int = 0  # of the schedule's attempts; a redrive starts again at 0
    next_attempt_at: datetime | None = moment()  # None: none to come
    slot_reserved: bool = False  # next_attempt_at is its turn under the endpoint's rate limit
    lease_token: UUID | None = None  # of the worker that sends it now
    lease_until: datetime | None = moment()
    enqueued_at: datetime | None = moment()  # when it was last handed to the broker, or will come back; None: no task
    last_status: int | None = None
    last_error: str | None = None  # a code such as timeout_total, or a short text
    exhausted_run_id: str | None = Field(default=None, max_length=155)  # the run whose dead letter says so
    created_at: datetime = moment(nullable=False)
    finished_at: datetime | None = moment()


class DeliveryAttempt(TaskyardTable, table=True):
    """One request to one endpoint, or one that a lost worker left behind."""

    __tablename__ = "taskyard_webhook_attempts"
    __table_args__ = (Index("ix_taskyard_webhook_attempts_started", "started_at"),)

    delivery_id: UUID = Field(primary_key=True, foreign_key="taskyard_webhook_deliveries.id", ondelete="CASCADE")
    number: int = Field(primary_key=True)  # from 1
    trigger: str = Field(default="schedule", max_length=16)  # schedule or manual
    by: str | None = Field(default=None, max_length=255)  # who asked for a manual one
    started_at: datetime = moment(nullable=False)
    total_ms: int | None = None
    phases: dict[str, float] | None = Field(default=None, sa_column=Column(JsonColumn))  # dns, connect, ttfb in ms
    remote_ip: str | None = Field(default=None, max_length=64)
    status: int | None = None
    error: str | None = Field(default=None, max_length=64)  # a code such as connection_refused
    excerpt: str | None = None  # of the answer's body, at most 16 KiB
    truncated: bool = False
    next_attempt_at: datetime | None = moment()
    worker: str | None = Field(default=None, max_length=255)
