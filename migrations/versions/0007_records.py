"""Logs and progress of runs, operations on many dead letters, and indexes for the filters of `jobs ls`."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
RUN_INDEXES = {
    "ix_runs_queue": ["queue", "enqueued_at"],
    "ix_runs_user": ["user_id", "enqueued_at"],
    "ix_runs_signature": ["error_signature", "enqueued_at"],
    "ix_runs_finished": ["finished_at"],
}
TEXT_INDEXES = {"trgm_runs_args": "CAST(args AS TEXT)", "trgm_runs_error": "error_message"}


def upgrade() -> None:
    """Add columns, tables and indexes."""
    op.add_column("runs", sa.Column("progress", JSON))
    op.add_column("runs", sa.Column("progress_event", sa.String(40), nullable=False, server_default=""))
    op.drop_index("ix_runs_error_signature", "runs")
    for name, columns in RUN_INDEXES.items():
        op.create_index(name, "runs", columns)
    op.add_column("dead_letters", sa.Column("operation_id", sa.Uuid()))
    op.create_index("ix_dead_letters_operation", "dead_letters", ["operation_id", "state"])
    op.create_table(
        "task_logs",
        sa.Column("run_id", sa.String(155), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("lines", JSON),
        sa.PrimaryKeyConstraint("run_id", "attempt", "event"),
    )
    op.create_table(
        "bulk_operations",
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
    op.create_index("ix_bulk_operations_newest", "bulk_operations", ["created_at", "id"])
    _add_text_indexes()


def downgrade() -> None:
    """Drop them again, and with them the logs of tasks."""
    for name in TEXT_INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    op.drop_table("bulk_operations")
    op.drop_table("task_logs")
    op.drop_index("ix_dead_letters_operation", "dead_letters")
    op.drop_column("dead_letters", "operation_id")
    for name in RUN_INDEXES:
        op.drop_index(name, "runs")
    op.create_index("ix_runs_error_signature", "runs", ["error_signature"])
    op.drop_column("runs", "progress_event")
    op.drop_column("runs", "progress")


def _add_text_indexes() -> None:
    """PostgreSQL finds text through trigrams; where the extension may not be made, such a search reads all rows."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            for name, expression in TEXT_INDEXES.items():
                connection.exec_driver_sql(f"CREATE INDEX {name} ON runs USING gin (({expression}) gin_trgm_ops)")
    except DBAPIError:
        print("pg_trgm cannot be made here: jobs ls --text will read all rows")  # noqa: T201 - said to who upgrades
