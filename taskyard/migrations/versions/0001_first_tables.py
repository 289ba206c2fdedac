"""First tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT_INDEXES = {"trgm_taskyard_runs_args": "CAST(args AS TEXT)", "trgm_taskyard_runs_error": "error_message"}


def upgrade() -> None:
    """Make all tables."""
    _create_attempts()
    _create_beat_state()
    _create_bulk_operations()
    _create_dead_letters()
    _create_flows()
    _create_flow_steps()
    _create_flow_edges()
    _create_operator_log()
    _create_platform()
    _create_runs()
    _create_schedule_fires()
    _create_schedules()
    _create_task_logs()
    _create_webhook_endpoints()
    _create_webhook_events()
    _create_webhook_deliveries()
    _create_webhook_secrets()
    _create_webhook_subscriptions()
    _create_webhook_attempts()
    _index_texts()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in (
        "taskyard_webhook_attempts",
        "taskyard_webhook_subscriptions",
        "taskyard_webhook_secrets",
        "taskyard_webhook_deliveries",
        "taskyard_webhook_events",
        "taskyard_webhook_endpoints",
        "taskyard_task_logs",
        "taskyard_schedules",
        "taskyard_schedule_fires",
        "taskyard_runs",
        "taskyard_platform",
        "taskyard_operator_log",
        "taskyard_flow_edges",
        "taskyard_flow_steps",
        "taskyard_flows",
        "taskyard_dead_letters",
        "taskyard_bulk_operations",
        "taskyard_beat_state",
        "taskyard_attempts",
    ):
        op.drop_table(table)


def _create_attempts() -> None:
    op.create_table(
        "taskyard_attempts",
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
        sa.Column("executions", JSON),
        sa.Column("started_event", sa.String(40), nullable=False),
        sa.Column("last_snooze", sa.String(40), nullable=False),
        sa.Column("last_event", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number"),
    )


def _create_beat_state() -> None:
    op.create_table(
        "taskyard_beat_state",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("value", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("at", MOMENT),
        sa.PrimaryKeyConstraint("name"),
    )


def _create_bulk_operations() -> None:
    op.create_table(
        "taskyard_bulk_operations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("verb", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("filter", JSON),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(1000)),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("refused", JSON),
        sa.Column("refused_count", sa.Integer(), nullable=False),
        sa.Column("place", sa.String(255)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("aborted_by", sa.String(255)),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_taskyard_bulk_operations_newest", "taskyard_bulk_operations", ["created_at", "id"])


def _create_dead_letters() -> None:
    op.create_table(
        "taskyard_dead_letters",
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
        sa.Column("operation_id", sa.Uuid()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "attempt", name="uq_taskyard_dead_letters_run_attempt"),
    )
    op.create_index(op.f("ix_taskyard_dead_letters_error_signature"), "taskyard_dead_letters", ["error_signature"])
    op.create_index("ix_taskyard_dead_letters_newest", "taskyard_dead_letters", ["state", "failed_at", "id"])
    op.create_index("ix_taskyard_dead_letters_operation", "taskyard_dead_letters", ["operation_id", "state"])
    op.create_index(op.f("ix_taskyard_dead_letters_task"), "taskyard_dead_letters", ["task"])


def _create_flows() -> None:
    op.create_table(
        "taskyard_flows",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ending", sa.String(16)),
        sa.Column("reason", sa.String()),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("open_steps", sa.Integer(), nullable=False),
        sa.Column("guards", sa.Integer(), nullable=False),
        sa.Column("deadline_seconds", sa.Float()),
        sa.Column("check_at", MOMENT),
        sa.Column("parent_id", sa.Uuid()),
        sa.Column("parent_seq", sa.Integer()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key", name="uq_taskyard_flows_key"),
    )
    op.create_index("ix_taskyard_flows_newest", "taskyard_flows", ["created_at", "id"])
    op.create_index("ix_taskyard_flows_state", "taskyard_flows", ["state", "created_at"])
    op.create_index("ix_taskyard_flows_check", "taskyard_flows", ["check_at"])
    op.create_index("ix_taskyard_flows_parent", "taskyard_flows", ["parent_id"])


def _create_flow_steps() -> None:
    op.create_table(
        "taskyard_flow_steps",
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("task", sa.String(255)),
        sa.Column("payload", JSON),
        sa.Column("options", JSON),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(155)),
        sa.Column("waits_for", sa.Integer(), nullable=False),
        sa.Column("group_seq", sa.Integer()),
        sa.Column("target_seq", sa.Integer()),
        sa.Column("next_member", sa.Integer()),
        sa.Column("if_failed", sa.String(8), nullable=False),
        sa.Column("is_cleanup", sa.Boolean(), nullable=False),
        sa.Column("is_counted", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("polls", sa.Integer(), nullable=False),
        sa.Column("result", JSON),
        sa.Column("error", sa.String()),
        sa.Column("deadline_seconds", sa.Float()),
        sa.Column("deadline_at", MOMENT),
        sa.Column("check_at", MOMENT),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.PrimaryKeyConstraint("flow_id", "seq"),
        sa.UniqueConstraint("flow_id", "name", name="uq_taskyard_flow_steps_name"),
    )
    op.create_index("ix_taskyard_flow_steps_check", "taskyard_flow_steps", ["check_at"])
    op.create_index("ix_taskyard_flow_steps_run", "taskyard_flow_steps", ["run_id"])
    op.create_index("ix_taskyard_flow_steps_group", "taskyard_flow_steps", ["flow_id", "group_seq", "seq"])


def _create_flow_edges() -> None:
    op.create_table(
        "taskyard_flow_edges",
        sa.Column("flow_id", sa.Uuid(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=False),
        sa.Column("child", sa.Integer(), nullable=False),
        sa.Column("if_failed", sa.String(8), nullable=False),
        sa.PrimaryKeyConstraint("flow_id", "parent", "child"),
    )
    op.create_index("ix_taskyard_flow_edges_child", "taskyard_flow_edges", ["flow_id", "child"])


def _create_operator_log() -> None:
    op.create_table(
        "taskyard_operator_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("verb", sa.String(64), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(1000)),
        sa.Column("filter", JSON),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_taskyard_operator_log_newest", "taskyard_operator_log", ["at", "id"])


def _create_platform() -> None:
    op.create_table(
        "taskyard_platform",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _create_runs() -> None:
    op.create_table(
        "taskyard_runs",
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
        sa.Column("progress", JSON),
        sa.Column("progress_event", sa.String(40), nullable=False),
        sa.Column("queued_event", sa.String(40), nullable=False),
        sa.Column("error_event", sa.String(64), nullable=False),
        sa.Column("last_event", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_taskyard_runs_finished", "taskyard_runs", ["finished_at"])
    op.create_index("ix_taskyard_runs_newest", "taskyard_runs", ["enqueued_at", "id"])
    op.create_index(op.f("ix_taskyard_runs_parent_id"), "taskyard_runs", ["parent_id"])
    op.create_index("ix_taskyard_runs_queue", "taskyard_runs", ["queue", "enqueued_at"])
    op.create_index("ix_taskyard_runs_signature", "taskyard_runs", ["error_signature", "enqueued_at"])
    op.create_index("ix_taskyard_runs_state", "taskyard_runs", ["state", "enqueued_at", "task", "queue"])
    op.create_index("ix_taskyard_runs_task", "taskyard_runs", ["task", "enqueued_at", "queue"])
    op.create_index("ix_taskyard_runs_user", "taskyard_runs", ["user_id", "enqueued_at"])


def _create_schedule_fires() -> None:
    op.create_table(
        "taskyard_schedule_fires",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("slot", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("is_manual", sa.Boolean(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("lag_ms", sa.Integer()),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.String(1000)),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("published_at", MOMENT),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("schedule_id", "slot", name="uq_taskyard_schedule_fires_schedule_slot"),
    )
    op.create_index("ix_taskyard_schedule_fires_recorded", "taskyard_schedule_fires", ["recorded_at"])
    op.create_index("ix_taskyard_schedule_fires_state", "taskyard_schedule_fires", ["state", "recorded_at"])


def _create_schedules() -> None:
    op.create_table(
        "taskyard_schedules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("owner", sa.String(16), nullable=False),
        sa.Column("task", sa.String(255), nullable=False),
        sa.Column("args", JSON, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("expression", sa.String(200), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("jitter_ms", sa.Integer(), nullable=False),
        sa.Column("start_at", MOMENT),
        sa.Column("end_at", MOMENT),
        sa.Column("misfire", sa.String(16), nullable=False),
        sa.Column("misfire_limit", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.String(8), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("paused_at", MOMENT),
        sa.Column("paused_by", sa.String(255)),
        sa.Column("pause_reason", sa.String(500)),
        sa.Column("retired_at", MOMENT),
        sa.Column("cursor", MOMENT, nullable=False),
        sa.Column("changes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_slot", MOMENT),
        sa.Column("last_run_id", sa.Uuid()),
        sa.Column("last_fired_at", MOMENT),
        sa.Column("fired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("missed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("updated_by", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )


def _create_task_logs() -> None:
    op.create_table(
        "taskyard_task_logs",
        sa.Column("run_id", sa.String(155), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("lines", JSON),
        sa.PrimaryKeyConstraint("run_id", "attempt", "event"),
    )


def _create_webhook_endpoints() -> None:
    op.create_table(
        "taskyard_webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.String()),
        sa.Column("disabled_at", MOMENT),
        sa.Column("sends_standard", sa.Boolean(), nullable=False),
        sa.Column("sends_predictify", sa.Boolean(), nullable=False),
        sa.Column("header_names", JSON),
        sa.Column("sealed_headers", sa.String()),
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
        sa.Column("next_start_at", MOMENT),
        sa.Column("slow_attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _create_webhook_events() -> None:
    op.create_table(
        "taskyard_webhook_events",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", sa.String(255), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("content_sha256", sa.String(64), nullable=False),
        sa.Column("needs_fan_out", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
    )
    op.create_index("ix_taskyard_webhook_events_created", "taskyard_webhook_events", ["created_at"])
    op.create_index(
        "ix_taskyard_webhook_events_fan_out",
        "taskyard_webhook_events",
        ["created_at"],
        sqlite_where=sa.text("needs_fan_out"),
        postgresql_where=sa.text("needs_fan_out"),
    )
    op.create_index(op.f("ix_taskyard_webhook_events_type"), "taskyard_webhook_events", ["type"])


def _create_webhook_deliveries() -> None:
    op.create_table(
        "taskyard_webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.String(255), nullable=False),
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
        sa.Column("exhausted_run_id", sa.String(155)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.ForeignKeyConstraint(["endpoint_id"], ["taskyard_webhook_endpoints.id"]),
        sa.ForeignKeyConstraint(["event_id"], ["taskyard_webhook_events.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_taskyard_webhook_deliveries_event_endpoint"),
    )
    op.create_index("ix_taskyard_webhook_deliveries_finished", "taskyard_webhook_deliveries", ["finished_at"])
    op.create_index(
        "ix_taskyard_webhook_deliveries_dead_letter",
        "taskyard_webhook_deliveries",
        ["state"],
        sqlite_where=sa.text("exhausted_run_id IS NOT NULL"),
        postgresql_where=sa.text("exhausted_run_id IS NOT NULL"),
    )
    op.create_index("ix_taskyard_webhook_deliveries_due", "taskyard_webhook_deliveries", ["state", "next_attempt_at"])
    op.create_index(
        "ix_taskyard_webhook_deliveries_lane", "taskyard_webhook_deliveries", ["endpoint_id", "lease_until"]
    )
    op.create_index(
        "ix_taskyard_webhook_deliveries_newest", "taskyard_webhook_deliveries", ["endpoint_id", "created_at"]
    )
    op.create_index(
        "ix_taskyard_webhook_deliveries_waiting",
        "taskyard_webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        sqlite_where=sa.text("enqueued_at IS NULL"),
        postgresql_where=sa.text("enqueued_at IS NULL"),
    )


def _create_webhook_secrets() -> None:
    op.create_table(
        "taskyard_webhook_secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("ciphertext", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.ForeignKeyConstraint(["endpoint_id"], ["taskyard_webhook_endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_taskyard_webhook_secrets_endpoint_id"), "taskyard_webhook_secrets", ["endpoint_id"])


def _create_webhook_subscriptions() -> None:
    op.create_table(
        "taskyard_webhook_subscriptions",
        sa.Column("pattern", sa.String(255), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["taskyard_webhook_endpoints.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pattern", "endpoint_id"),
    )


def _create_webhook_attempts() -> None:
    op.create_table(
        "taskyard_webhook_attempts",
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
        sa.ForeignKeyConstraint(["delivery_id"], ["taskyard_webhook_deliveries.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
    )
    op.create_index("ix_taskyard_webhook_attempts_started", "taskyard_webhook_attempts", ["started_at"])


def _index_texts() -> None:
    """Index what `jobs ls --text` searches, where PostgreSQL has pg_trgm or lets us make it."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            for name, expression in TEXT_INDEXES.items():
                connection.exec_driver_sql(
                    f"CREATE INDEX {name} ON taskyard_runs USING gin (({expression}) gin_trgm_ops)"
                )
    except DBAPIError:
        print("pg_trgm cannot be made here: jobs ls --text will read all rows")  # noqa: T201 - said to who upgrades
