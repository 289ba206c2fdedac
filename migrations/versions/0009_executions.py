"""The starts and stalls of an attempt that lost its worker."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("attempts", sa.Column("executions", sa.JSON().with_variant(postgresql.JSONB(), "postgresql")))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("attempts", "executions")
