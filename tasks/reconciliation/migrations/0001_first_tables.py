"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AMOUNT = sa.Numeric(100, 0).with_variant(sa.String(101), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make all tables."""
    _create_recon_reports()
    _create_recon_markets()
    _create_recon_positions()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in (
        "recon_positions",
        "recon_markets",
        "recon_reports",
    ):
        op.drop_table(table)


def _create_recon_reports() -> None:
    op.create_table(
        "recon_reports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("correlation_id", sa.String(255)),
        sa.Column("source", sa.String(16)),
        sa.Column("block", sa.BigInteger()),
        sa.Column("block_hash", sa.String(128)),
        sa.Column("markets", sa.Integer(), nullable=False),
        sa.Column("markets_ok", sa.Integer(), nullable=False),
        sa.Column("markets_partial", sa.Integer(), nullable=False),
        sa.Column("markets_failed", sa.Integer(), nullable=False),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("matches", sa.Integer(), nullable=False),
        sa.Column("mismatches", sa.Integer(), nullable=False),
        sa.Column("missing_on_chain", sa.Integer(), nullable=False),
        sa.Column("missing_in_db", sa.Integer(), nullable=False),
        sa.Column("db_total", AMOUNT, nullable=False),
        sa.Column("chain_total", AMOUNT, nullable=False),
        sa.Column("drift", AMOUNT, nullable=False),
        sa.Column("drift_bp", sa.BigInteger(), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("event_id", sa.String(64)),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_recon_reports_newest", "recon_reports", ["started_at", "id"])
    op.create_index("ix_recon_reports_state", "recon_reports", ["state"])


def _create_recon_markets() -> None:
    op.create_table(
        "recon_markets",
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("error", sa.String()),
        sa.Column("block", sa.BigInteger()),
        sa.Column("keys", sa.Integer(), nullable=False),
        sa.Column("matches", sa.Integer(), nullable=False),
        sa.Column("mismatches", sa.Integer(), nullable=False),
        sa.Column("missing_on_chain", sa.Integer(), nullable=False),
        sa.Column("missing_in_db", sa.Integer(), nullable=False),
        sa.Column("db_total", AMOUNT),
        sa.Column("chain_total", AMOUNT),
        sa.Column("drift", AMOUNT),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("sent_at", MOMENT, nullable=False),
        sa.Column("done_at", MOMENT),
        sa.ForeignKeyConstraint(["report_id"], ["recon_reports.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("report_id", "market_id"),
    )
    op.create_index("ix_recon_markets_state", "recon_markets", ["report_id", "state"])


def _create_recon_positions() -> None:
    op.create_table(
        "recon_positions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("db_amount", AMOUNT, nullable=False),
        sa.Column("chain_amount", AMOUNT),
        sa.Column("difference", AMOUNT),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["report_id"], ["recon_reports.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_recon_positions_market", "recon_positions", ["report_id", "market_id"])
