"""Table of the operator log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "operator_log",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("verb", sa.String(64), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("reason", sa.String(1000)),
        sa.Column("filter", JSON),
        sa.Column("count", sa.Integer(), nullable=False),
    )
    op.create_index("ix_operator_log_newest", "operator_log", ["at", "id"])


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("operator_log")
