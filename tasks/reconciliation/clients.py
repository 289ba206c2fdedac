"""The outside world of a reconciliation behind Protocols: the chain, and the database's positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlmodel import Session

from tasks.reconciliation.comparison import PositionKey, Positions


class ChainUnavailableError(Exception):
    """The chain could not be read, so nothing is known about it: not that something is missing there."""


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """A state of the chain that can be named."""

    source: str  # evm or soroban
    block: int  # block or ledger number
    block_hash: str


@dataclass(frozen=True, slots=True)
class MarketReading:
    """The positions of one market, and the state of the chain they belong to."""

    at: ChainSnapshot
    positions: dict[PositionKey, int]


class ChainReader(Protocol):
    """Reads a contract's positions from the chain."""

    def snapshot(self) -> ChainSnapshot:
        """
        Return a final state to read at, the same for all markets of a run.

        Raises:
            ChainUnavailableError: The node does not answer, or there is no such contract.
        """

    def positions(self, market_id: str, at: ChainSnapshot) -> MarketReading:
        """
        Read all positions of a market, at the snapshot or, where nodes keep no history, at a later one.

        Raises:
            ChainUnavailableError: They could not be read completely.
        """

    def normal_address(self, address: str) -> str:
        """Return the one way of writing this address."""


class PositionsBook(Protocol):
    """Reads positions from the database; see :mod:`tasks.markets.positions`."""

    def market_ids(self, session: Session, /) -> list[str]:
        """Return the ids of all markets."""

    def has_market(self, session: Session, market_id: str, /) -> bool:
        """Return whether there is such a market."""

    def positions(self, session: Session, market_id: str, up_to_ledger: int, /) -> Positions:
        """Sum the confirmed positions, in smallest units."""

    def left_out(self, session: Session, market_id: str, up_to_ledger: int, /) -> int:
        """Count the confirmed predictions that the sums leave out."""


class EmitEvent(Protocol):
    """Write a webhook event in an open transaction; see :func:`taskyard.webhooks.outbox.emit`."""

    def __call__(self, session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
        """Return the event's id."""


class StartRun(Protocol):
    """Let markets be compared, and the report completed when all have ended, if the open transaction is committed."""

    def __call__(self, session: Session, report_id: UUID, market_ids: Sequence[str]) -> None:
        """Start it."""


class NoChainReader:
    """No chain is configured: every market is `partial`."""

    def snapshot(self) -> ChainSnapshot:
        """Raise: there is no chain."""
        raise ChainUnavailableError("no chain is configured: set CHAIN_PROVIDER")

    def positions(self, market_id: str, at: ChainSnapshot) -> MarketReading:
        """Raise: there is no chain."""
        raise ChainUnavailableError(f"no chain is configured to read {market_id!r} at {at.block}")

    def normal_address(self, address: str) -> str:
        """Return it as it is."""
        return address
