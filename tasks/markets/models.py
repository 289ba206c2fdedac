"""Tables of the markets: who predicted what, what the chain said, and how each market was settled."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Column, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from taskyard.database.amounts import Amount
from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now

MARKET_STATES = ("open", "disputed", "resolved")
PREDICTION_STATES = ("pending", "confirmed", "failed")
RESULTS = ("won", "lost", "refunded", "rejected")  # rejected: it was not confirmed, so it was never in the pool
DECISIONS = ("acknowledged", "overridden")  # by an operator; only a refusal is overridden
VOID = "VOID"  # as winning outcome: everybody is refunded


def moment(*, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC; one that must not be empty starts as now."""
    if nullable:
        return Field(default=None, sa_column=Column(UtcDateTime))
    return Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False, default=utc_now))


def units(*, nullable: bool = False) -> Any:
    """Declare a column that holds whole smallest units."""
    column = Column(Amount, nullable=nullable)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


def block_number(*, nullable: bool = True) -> Any:
    """Declare a column that holds a block or ledger number."""
    column = Column(BigInteger, nullable=nullable)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


METADATA = MetaData()


class MarketTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the tables of this domain."""


class User(MarketTable, table=True):
    """Somebody who predicts, known by an address on the chain."""

    __tablename__ = "users"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    address: str = Field(max_length=255, unique=True)
    created_at: datetime = moment(nullable=False)


class Market(MarketTable, table=True):
    """A question with outcomes to bet on."""

    __tablename__ = "markets"

    id: str = Field(primary_key=True, max_length=255)
    title: str = ""
    state: str = Field(default="open", max_length=16)  # one of MARKET_STATES
    outcomes: list[str] = Field(default_factory=list, sa_column=Column(JsonColumn, nullable=False))  # empty: any
    fee_bp: int = 0  # of the losers' stakes, in 1/10000, 0-10000
    winning_outcome: str | None = None
    created_at: datetime = moment(nullable=False)
    resolved_at: datetime | None = moment()


class Prediction(MarketTable, table=True):
    """
    One bet of one user on one outcome.

    Few indexes, none on what a resolution writes: it changes every row of a market at once.
    """

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_market", "market_id"),
        Index(
            "ix_predictions_due",
            "next_look_at",
            postgresql_where=text("state = 'pending'"),
            sqlite_where=text("state = 'pending'"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    market_id: str = Field(foreign_key="markets.id", max_length=255)
    user_id: UUID = Field(foreign_key="users.id")
    outcome: str
    amount: int = units()
    tx_hash: str = Field(max_length=128)
    state: str = Field(default="pending", max_length=16)  # one of PREDICTION_STATES
    looks: int = 0  # for its transaction, without finding it
    next_look_at: datetime = moment(nullable=False)
    last_error: str | None = None
    ledger: int | None = block_number()  # of its transaction, once confirmed
    confirmed_at: datetime | None = moment()
    result: str | None = Field(default=None, max_length=16)  # one of RESULTS; None: the market is not resolved
    payout: int | None = units(nullable=True)  # None: nothing to pay by this platform
    created_at: datetime = moment(nullable=False)


class IndexerEvent(MarketTable, table=True):
    """A successful transaction that the indexer saw on the chain."""

    __tablename__ = "indexer_events"
    __table_args__ = (Index("ix_indexer_events_tx_hash", "tx_hash"),)

    ledger: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    tx_hash: str = Field(primary_key=True, max_length=128)
    op_index: int = Field(primary_key=True)
    kind: str = Field(default="", max_length=64)
    seen_at: datetime = moment(nullable=False)


class Resolution(MarketTable, table=True):
    """How a market was settled; one per market, never changed."""

    __tablename__ = "market_resolutions"

    market_id: str = Field(primary_key=True, foreign_key="markets.id", max_length=255)
    winning_outcome: str
    kind: str = Field(max_length=16)  # shared, void or no_winner
    ledger: int = block_number(nullable=False)
    event_at: datetime = moment(nullable=False)
    pool: int = units()  # stakes of all confirmed predictions
    fee: int = units()
    paid: int = units()  # pool = paid + fee
    won: int  # predictions, as the next three
    lost: int
    refunded: int
    rejected: int
    oracle_fallback: bool = False  # the guard had to rely on the one named source
    event_id: str = Field(max_length=64)  # of `market.resolved`
    resolved_at: datetime = moment(nullable=False)


class NeedsDecision(MarketTable):
    """What a person must look at, and what was decided; all None: nobody has decided."""

    decision: str | None = Field(default=None, max_length=16)  # one of DECISIONS
    decided_at: datetime | None = Field(default=None, sa_type=UtcDateTime)  # a column object cannot have two tables
    decided_by: str | None = Field(default=None, max_length=255)  # address, as in the audit of administrators' acts
    decided_why: str | None = Field(default=None, max_length=500)


class Conflict(NeedsDecision, table=True):
    """An event that names another winner for a resolved market; a person must look."""

    __tablename__ = "market_conflicts"
    __table_args__ = (UniqueConstraint("market_id", "claimed_outcome", "ledger", name="uq_market_conflicts_claim"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    market_id: str = Field(foreign_key="markets.id", max_length=255)
    resolved_outcome: str
    claimed_outcome: str = Field(max_length=255)
    ledger: int = block_number(nullable=False)
    event_at: datetime = moment(nullable=False)
    times_seen: int = 1
    first_seen_at: datetime = moment(nullable=False)
    last_seen_at: datetime = moment(nullable=False)


class OracleRefusal(NeedsDecision, table=True):
    """An event that the oracle guard did not let through, and why."""

    __tablename__ = "market_oracle_refusals"
    __table_args__ = (UniqueConstraint("market_id", "claimed_outcome", "ledger", name="uq_market_oracle_refusals"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    market_id: str = Field(foreign_key="markets.id", max_length=255)
    claimed_outcome: str = Field(max_length=255)
    ledger: int = block_number(nullable=False)
    event_at: datetime | None = moment()  # None: refused before this was kept
    reason: str
    times_seen: int = 1
    first_seen_at: datetime = moment(nullable=False)
    last_seen_at: datetime = moment(nullable=False)
