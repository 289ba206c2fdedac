"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make all tables."""
    _create_admin_actions()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in ("admin_actions",):
        op.drop_table(table)


def _create_admin_actions() -> None:
    op.create_table(
        "admin_actions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(255)),
        sa.Column("ip", sa.String(255)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("target", sa.String(255)),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_admin_actions_correlation_id"), "admin_actions", ["correlation_id"])
    op.create_index("ix_admin_actions_newest", "admin_actions", ["created_at"])
