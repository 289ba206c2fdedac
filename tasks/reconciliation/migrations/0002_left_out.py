"""How many predictions a report left out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("recon_reports", "recon_markets")


def upgrade() -> None:
    """Add the columns; a report of before counts 0."""
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column("left_out", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """Drop the columns."""
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            batch.drop_column("left_out")
