"""Tables of the reconciliation: reports, their markets, every compared position, and who asked."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from taskyard.database.amounts import Amount
from taskyard.database.columns import UtcDateTime, utc_now

STATUSES = ("ok", "partial", "failed")  # partial: the chain could not be read; failed: we could not finish


def moment(*, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC; one that must not be empty starts as now."""
    if nullable:
        return Field(default=None, sa_column=Column(UtcDateTime))
    return Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False, default=utc_now))


def units(*, nullable: bool = True) -> Any:
    """Declare a column that holds whole smallest units; one that must not be empty starts at 0."""
    if nullable:
        return Field(default=None, sa_column=Column(Amount))
    return Field(default=0, sa_column=Column(Amount, nullable=False, default=0))


def block_number() -> Any:
    """Declare a column that holds a block or ledger number."""
    return Field(default=None, sa_column=Column(BigInteger))


def count() -> Any:
    """Declare a column that counts."""
    return Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


METADATA = MetaData()


class ReconciliationTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the tables of this domain."""


class Report(ReconciliationTable, table=True):
    """One reconciliation of one market or of all."""

    __tablename__ = "recon_reports"
    __table_args__ = (Index("ix_recon_reports_newest", "started_at", "id"), Index("ix_recon_reports_state", "state"))

    id: UUID = Field(primary_key=True)
    scope: str = Field(max_length=16)  # global or market
    state: str = Field(default="running", max_length=16)  # running or completed
    status: str | None = Field(default=None, max_length=16)  # one of STATUSES, once completed
    correlation_id: str | None = Field(default=None, max_length=255)
    source: str | None = Field(default=None, max_length=16)  # evm or soroban; None: the chain did not answer
    block: int | None = block_number()  # snapshot
    block_hash: str | None = Field(default=None, max_length=128)
    markets: int = 0
    markets_ok: int = 0
    markets_partial: int = 0
    markets_failed: int = 0
    keys: int = 0
    matches: int = 0
    mismatches: int = 0
    missing_on_chain: int = 0
    missing_in_db: int = 0
    left_out: int = count()  # confirmed predictions of later ledgers than the chain was read at
    db_total: int = units(nullable=False)  # of the markets that are ok, as the next two
    chain_total: int = units(nullable=False)
    drift: int = units(nullable=False)
    drift_bp: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # of the larger total, in 1/10000
    severity: str = Field(default="none", max_length=16)
    event_id: str | None = Field(default=None, max_length=64)  # of `reconciliation.drift`
    started_at: datetime = moment(nullable=False)
    completed_at: datetime | None = moment()


class MarketLine(ReconciliationTable, table=True):
    """One market of a report."""

    __tablename__ = "recon_markets"
    __table_args__ = (Index("ix_recon_markets_state", "report_id", "state"),)

    report_id: UUID = Field(primary_key=True, foreign_key="recon_reports.id", ondelete="CASCADE")
    market_id: str = Field(primary_key=True, max_length=255)  # no foreign key: a report outlives its markets
    state: str = Field(default="pending", max_length=16)  # pending or done
    status: str | None = Field(default=None, max_length=16)  # one of STATUSES, once done
    error: str | None = None  # why it is not ok
    block: int | None = block_number()  # that its positions are of
    keys: int = 0
    matches: int = 0
    mismatches: int = 0
    missing_on_chain: int = 0
    missing_in_db: int = 0
    left_out: int = count()  # as in the report
    db_total: int | None = units()
    chain_total: int | None = units()  # None: the chain could not be read, as the next
    drift: int | None = units()
    severity: str = Field(default="none", max_length=16)
    done_at: datetime | None = moment()


class PositionRow(ReconciliationTable, table=True):
    """One compared position."""

    __tablename__ = "recon_positions"
    __table_args__ = (Index("ix_recon_positions_market", "report_id", "market_id"),)

    # SQLite counts up only an INTEGER key.
    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    )
    report_id: UUID = Field(foreign_key="recon_reports.id", ondelete="CASCADE")
    market_id: str = Field(max_length=255)
    address: str
    outcome: str
    kind: str = Field(max_length=16)  # match, mismatch, missing_on_chain or missing_in_db
    db_amount: int = units(nullable=False)
    chain_amount: int | None = units()  # None: missing there
    difference: int | None = units()  # database - chain; None: missing on one side
    severity: str = Field(max_length=16)
