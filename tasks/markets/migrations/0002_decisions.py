"""What operators decide on conflicts and refusals, and the time of a refused event."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
TABLES = ("market_conflicts", "market_oracle_refusals")
DECISION = (("decision", sa.String(16)), ("decided_at", MOMENT), ("decided_by", sa.String(255)))


def upgrade() -> None:
    """Add the columns."""
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            for name, kind in (*DECISION, ("decided_why", sa.String(500))):
                batch.add_column(sa.Column(name, kind))
    with op.batch_alter_table("market_oracle_refusals") as batch:
        batch.add_column(sa.Column("event_at", MOMENT))


def downgrade() -> None:
    """Drop the columns, and with them all decisions."""
    with op.batch_alter_table("market_oracle_refusals") as batch:
        batch.drop_column("event_at")
    for table in TABLES:
        with op.batch_alter_table(table) as batch:
            for name in ("decided_why", *reversed([name for name, _ in DECISION])):
                batch.drop_column(name)
