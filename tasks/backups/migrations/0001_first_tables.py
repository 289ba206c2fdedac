"""First tables."""

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
    _create_backup_leases()
    _create_backup_runs()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in (
        "backup_runs",
        "backup_leases",
    ):
        op.drop_table(table)


def _create_backup_leases() -> None:
    op.create_table(
        "backup_leases",
        sa.Column("target", sa.String(31), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.String(155), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("target"),
    )


def _create_backup_runs() -> None:
    op.create_table(
        "backup_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.String(31), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("holder", sa.String(155), nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("duration_ms", sa.Integer()),
        sa.Column("restore_ms", sa.Integer()),
        sa.Column("dump", sa.String()),
        sa.Column("dump_format", sa.String(16)),
        sa.Column("dump_taken_at", MOMENT),
        sa.Column("dump_bytes", sa.BigInteger()),
        sa.Column("dump_sha256", sa.String(64)),
        sa.Column("reason", sa.String()),
        sa.Column("checks", JSON),
        sa.Column("facts", JSON),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_backup_runs_newest", "backup_runs", ["started_at", "id"])
    op.create_index("ix_backup_runs_target", "backup_runs", ["target", "started_at"])
