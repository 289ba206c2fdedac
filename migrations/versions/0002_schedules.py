"""Tables of the scheduler: schedules, their fires, and the numbers that leaders share."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    _create_schedules()
    _create_fires()
    _create_state()


def downgrade() -> None:
    """Drop the tables, and with them all schedules that people made."""
    for table in ("beat_state", "schedule_fires", "schedules"):
        op.drop_table(table)


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Uuid(), primary_key=True),
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
        sa.Column("changes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("last_slot", MOMENT),
        sa.Column("last_run_id", sa.Uuid()),
        sa.Column("last_fired_at", MOMENT),
        sa.Column("fired", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("skipped", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("missed", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("updated_by", sa.String(255), nullable=False),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )


def _create_fires() -> None:
    op.create_table(
        "schedule_fires",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("slot", MOMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("is_manual", sa.Boolean(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("lag_ms", sa.Integer()),
        sa.Column("fence", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("error", sa.String(1000)),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("published_at", MOMENT),
        sa.UniqueConstraint("schedule_id", "slot", name="uq_schedule_fires_schedule_slot"),
    )
    op.create_index("ix_schedule_fires_state", "schedule_fires", ["state", "recorded_at"])
    op.create_index("ix_schedule_fires_recorded", "schedule_fires", ["recorded_at"])


def _create_state() -> None:
    op.create_table(
        "beat_state",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("at", MOMENT),
    )
