"""Tables of the audit, of dead letters and of webhooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make all tables."""
    _create_attempts()
    _create_dead_letters()
    _create_runs()
    _create_webhook_endpoints()
    _create_webhook_events()
    _create_webhook_deliveries()
    _create_webhook_secrets()
    _create_webhook_subscriptions()
    _create_webhook_attempts()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in (
        "webhook_attempts",
        "webhook_subscriptions",
        "webhook_secrets",
        "webhook_deliveries",
        "webhook_events",
        "webhook_endpoints",
        "runs",
        "dead_letters",
        "attempts",
    ):
        op.drop_table(table)


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("run_id", sa.String(155), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("snoozes", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("next_try_at", MOMENT),
        sa.Column("wait_ms", sa.Integer()),
        sa.Column("runtime_ms", sa.Integer()),
        sa.Column("worker", sa.String(255)),
        sa.Column("pid", sa.Integer()),
        sa.Column("error_type", sa.String(255)),
        sa.Column("error_message", sa.String()),
        sa.Column("traceback", sa.String()),
        sa.Column("started_event", sa.String(40), nullable=False),
        sa.Column("last_snooze", sa.String(40), nullable=False),
        sa.Column("last_event", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number"),
    )


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.String(155), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(255)),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("error_type", sa.String(255), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("error_signature", sa.String(64), nullable=False),
        sa.Column("traceback", sa.String()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", JSON),
        sa.Column("first_failed_at", MOMENT),
        sa.Column("failed_at", MOMENT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("redriven_run_id", sa.String(155)),
        sa.Column("redrive_sent_at", MOMENT),
        sa.Column("resolved_at", MOMENT),
        sa.Column("resolved_by", sa.String(255)),
        sa.Column("resolution", sa.String()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "attempt", name="uq_dead_letters_run_attempt"),
    )
    op.create_index("ix_dead_letters_error_signature", "dead_letters", ["error_signature"])
    op.create_index("ix_dead_letters_newest", "dead_letters", ["state", "failed_at", "id"])
    op.create_index("ix_dead_letters_task", "dead_letters", ["task"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(155), nullable=False),
        sa.Column("task", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("parent_id", sa.String(155)),
        sa.Column("root_id", sa.String(155)),
        sa.Column("redrive_of", sa.String(36)),
        sa.Column("args", JSON),
        sa.Column("enqueued_at", MOMENT),
        sa.Column("scheduled_for", MOMENT),
        sa.Column("due_at", MOMENT),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("wait_ms", sa.Integer()),
        sa.Column("runtime_ms", sa.Integer()),
        sa.Column("result", sa.String()),
        sa.Column("error_type", sa.String(255)),
        sa.Column("error_message", sa.String()),
        sa.Column("error_signature", sa.String(64)),
        sa.Column("queued_event", sa.String(40), nullable=False),
        sa.Column("error_event", sa.String(64), nullable=False),
        sa.Column("last_event", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_runs_error_signature", "runs", ["error_signature"])
    op.create_index("ix_runs_newest", "runs", ["enqueued_at", "id"])
    op.create_index("ix_runs_parent_id", "runs", ["parent_id"])
    op.create_index("ix_runs_state", "runs", ["state", "enqueued_at"])
    op.create_index("ix_runs_task", "runs", ["task", "enqueued_at"])


def _create_webhook_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String()),
        sa.Column("disabled_at", MOMENT),
        sa.Column("sends_standard", sa.Boolean(), nullable=False),
        sa.Column("sends_predictify", sa.Boolean(), nullable=False),
        sa.Column("extra_headers", JSON),
        sa.Column("max_concurrency", sa.Integer()),
        sa.Column("rate_per_second", sa.Float()),
        sa.Column("retry_delays", JSON),
        sa.Column("consecutive_failures", sa.Integer(), nullable=False),
        sa.Column("consecutive_exhausted", sa.Integer(), nullable=False),
        sa.Column("failing_since", MOMENT),
        sa.Column("last_success_at", MOMENT),
        sa.Column("breaker_openings", sa.Integer(), nullable=False),
        sa.Column("paused_until", MOMENT),
        sa.Column("next_slot_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _create_webhook_events() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index("ix_webhook_events_type", "webhook_events", ["type"])


def _create_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("slot_reserved", sa.Boolean(), nullable=False),
        sa.Column("lease_token", sa.Uuid()),
        sa.Column("lease_until", MOMENT),
        sa.Column("enqueued_at", MOMENT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.String()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"]),
        sa.ForeignKeyConstraint(["event_id"], ["webhook_events.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_webhook_deliveries_event_endpoint"),
    )
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["state", "next_attempt_at"])
    op.create_index("ix_webhook_deliveries_lane", "webhook_deliveries", ["endpoint_id", "lease_until"])
    op.create_index("ix_webhook_deliveries_newest", "webhook_deliveries", ["endpoint_id", "created_at"])
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        sqlite_where=sa.text("enqueued_at IS NULL"),
        postgresql_where=sa.text("enqueued_at IS NULL"),
    )


def _create_webhook_secrets() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("ciphertext", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_webhook_secrets_endpoint_id", "webhook_secrets", ["endpoint_id"])


def _create_webhook_subscriptions() -> None:
    op.create_table(
        "webhook_subscriptions",
        sa.Column("pattern", sa.String(255), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pattern", "endpoint_id"),
    )


def _create_webhook_attempts() -> None:
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("by", sa.String(255)),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("total_ms", sa.Integer()),
        sa.Column("phases", JSON),
        sa.Column("remote_ip", sa.String(64)),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.String(64)),
        sa.Column("excerpt", sa.String()),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("worker", sa.String(255)),
        sa.ForeignKeyConstraint(["delivery_id"], ["webhook_deliveries.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
    )
