"""How often and when a market was sent is known by the flow of its run."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("recon_markets") as batch:
        batch.drop_column("sends")
        batch.drop_column("sent_at")


def downgrade() -> None:
    """Add the columns, with the values of a market that was sent once, when the table was changed."""
    moment = sa.Column(
        "sent_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.current_timestamp()
    )
    with op.batch_alter_table("recon_markets") as batch:
        batch.add_column(sa.Column("sends", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(moment)
