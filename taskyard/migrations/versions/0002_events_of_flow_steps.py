"""Find steps by the event that they wait for, and keep indexes of the steps alone that have something to find."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLE = "taskyard_flow_steps"


def upgrade() -> None:
    """Apply."""
    op.add_column(TABLE, sa.Column("event", sa.String(512)))
    op.execute(f"UPDATE {TABLE} SET event = options ->> 'event' WHERE kind = 'event'")  # noqa: S608 - a name of ours
    _index_those_that_have_one("event", "event")
    op.drop_index("ix_taskyard_flow_steps_check", TABLE)
    _index_those_that_have_one("check", "check_at")


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_taskyard_flow_steps_check", TABLE)
    op.create_index("ix_taskyard_flow_steps_check", TABLE, ["check_at"])
    op.drop_index("ix_taskyard_flow_steps_event", TABLE)
    op.drop_column(TABLE, "event")


def _index_those_that_have_one(name: str, column: str) -> None:
    given = sa.text(f"{column} IS NOT NULL")
    op.create_index(f"ix_taskyard_flow_steps_{name}", TABLE, [column], sqlite_where=given, postgresql_where=given)
