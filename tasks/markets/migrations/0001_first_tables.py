"""First tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

AMOUNT = sa.Numeric(100, 0).with_variant(sa.String(101), "sqlite")
MOMENT = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make all tables."""
    _create_indexer_events()
    _create_markets()
    _create_users()
    _create_market_conflicts()
    _create_market_oracle_refusals()
    _create_market_resolutions()
    _create_predictions()


def downgrade() -> None:
    """Drop all tables, and with them all records."""
    for table in (
        "predictions",
        "market_resolutions",
        "market_oracle_refusals",
        "market_conflicts",
        "users",
        "markets",
        "indexer_events",
    ):
        op.drop_table(table)


def _create_indexer_events() -> None:
    op.create_table(
        "indexer_events",
        sa.Column("ledger", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tx_hash", sa.String(128), nullable=False),
        sa.Column("op_index", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("ledger", "tx_hash", "op_index"),
    )
    op.create_index("ix_indexer_events_tx_hash", "indexer_events", ["tx_hash"])


def _create_markets() -> None:
    op.create_table(
        "markets",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("outcomes", JSON, nullable=False),
        sa.Column("fee_bp", sa.Integer(), nullable=False),
        sa.Column("winning_outcome", sa.String()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("resolved_at", MOMENT),
        sa.PrimaryKeyConstraint("id"),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("address"),
    )


def _create_market_conflicts() -> None:
    op.create_table(
        "market_conflicts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("resolved_outcome", sa.String(), nullable=False),
        sa.Column("claimed_outcome", sa.String(255), nullable=False),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("event_at", MOMENT, nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("market_id", "claimed_outcome", "ledger", name="uq_market_conflicts_claim"),
    )


def _create_market_oracle_refusals() -> None:
    op.create_table(
        "market_oracle_refusals",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("claimed_outcome", sa.String(255), nullable=False),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("times_seen", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("market_id", "claimed_outcome", "ledger", name="uq_market_oracle_refusals"),
    )


def _create_market_resolutions() -> None:
    op.create_table(
        "market_resolutions",
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("winning_outcome", sa.String(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("ledger", sa.BigInteger(), nullable=False),
        sa.Column("event_at", MOMENT, nullable=False),
        sa.Column("pool", AMOUNT, nullable=False),
        sa.Column("fee", AMOUNT, nullable=False),
        sa.Column("paid", AMOUNT, nullable=False),
        sa.Column("won", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("refunded", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("oracle_fallback", sa.Boolean(), nullable=False),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("resolved_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"]),
        sa.PrimaryKeyConstraint("market_id"),
    )


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("market_id", sa.String(255), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("amount", AMOUNT, nullable=False),
        sa.Column("tx_hash", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("next_look_at", MOMENT, nullable=False),
        sa.Column("last_error", sa.String()),
        sa.Column("ledger", sa.BigInteger()),
        sa.Column("confirmed_at", MOMENT),
        sa.Column("result", sa.String(16)),
        sa.Column("payout", AMOUNT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["market_id"], ["markets.id"]),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_predictions_due",
        "predictions",
        ["next_look_at"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index("ix_predictions_market", "predictions", ["market_id"])
