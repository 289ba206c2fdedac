"""Indexes that answer two filters of `jobs ls` at once."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BEFORE = {"ix_runs_state": ["state", "enqueued_at"], "ix_runs_task": ["task", "enqueued_at"]}
NOW = {"ix_runs_state": [*BEFORE["ix_runs_state"], "task", "queue"], "ix_runs_task": [*BEFORE["ix_runs_task"], "queue"]}


def upgrade() -> None:
    """Make them wider."""
    _make(NOW)


def downgrade() -> None:
    """Make them as they were."""
    _make(BEFORE)


def _make(indexes: dict[str, list[str]]) -> None:
    for name, columns in indexes.items():
        op.drop_index(name, "runs")
        op.create_index(name, "runs", columns)
