"""What operators decide where the platform must not: each in its caller's transaction, with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from audit.models import AdminAction
from tasks.markets.models import Conflict, Market, OracleRefusal, Resolution
from tasks.markets.payloads import ResolveMarket
from tasks.markets.queries import MarketNotFoundError
from tasks.markets.store import ResolutionVerdict
from taskyard.database.columns import utc_now


class DecisionRefusedError(ValueError):
    """There is nothing to decide any more, or the market has no such outcome."""


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides, and why."""

    who: str  # as in the audit of administrators' acts, such as `os:alice`
    why: str


class MarketSettler(Protocol):
    """What a decision needs of a resolution; see :class:`tasks.markets.store.MarketStore`."""

    def settle(self, session: Session, event: ResolveMarket) -> ResolutionVerdict:
        """Settle a market that is not resolved, without the oracle guard."""


def acknowledge(session: Session, ids: Sequence[UUID], decider: Decider) -> list[Conflict | OracleRefusal]:
    """
    Mark conflicts and refusals as seen; nothing else changes.

    Raises:
        LookupError: There is no such conflict or refusal.
        DecisionRefusedError: One was decided before.
    """
    rows = [_find(session, each) for each in ids]
    for row in rows:
        _decide(row, "acknowledged", decider)
        session.add(_action("admin.market.acknowledge", decider, str(row.id)))
    return rows


def override(session: Session, refusal_id: UUID, decider: Decider, markets: MarketSettler) -> Resolution:
    """
    Settle a market as an event said that the oracle guard has refused.

    Raises:
        LookupError: There is no such refusal.
        DecisionRefusedError: It was overridden before, or the market is resolved.
    """
    refusal = session.get(OracleRefusal, refusal_id, with_for_update=True)
    if refusal is None:
        raise LookupError(f"no oracle refusal {refusal_id}")
    if refusal.decision == "acknowledged":
        refusal.decision = None  # seen, and now decided
    _decide(refusal, "overridden", decider)
    session.add(_action("admin.market.override", decider, refusal.market_id))
    return _settled(markets.settle(session, event_of(refusal)), refusal.market_id, refusal.claimed_outcome)


def settle(session: Session, event: ResolveMarket, decider: Decider, markets: MarketSettler) -> Resolution:
    """
    Settle a market, disputed or not, as an operator decides.

    Raises:
        MarketNotFoundError: There is no such market.
        DecisionRefusedError: It is resolved, or has no such outcome.
    """
    session.add(_action("admin.market.settle", decider, event.market_id))
    return _settled(markets.settle(session, event), event.market_id, event.winning_outcome)


def reopen(session: Session, market_id: str, decider: Decider) -> None:
    """
    End a dispute without a decision on the winner: the event that waits resolves the market at its next look.

    Raises:
        MarketNotFoundError: There is no such market.
        DecisionRefusedError: It is not disputed.
    """
    market = session.scalar(select(Market).where(col(Market.id) == market_id).with_for_update())
    if market is None:
        raise MarketNotFoundError(f"no market {market_id!r}")
    if market.state != "disputed":
        raise DecisionRefusedError(f"market {market_id!r} is not disputed, it is {market.state}")
    market.state = "open"
    session.add(_action("admin.market.reopen", decider, market_id))


def event_of(refusal: OracleRefusal) -> ResolveMarket:
    """Return the event that was refused, without its quotes."""
    return ResolveMarket(
        market_id=refusal.market_id,
        winning_outcome=refusal.claimed_outcome,
        ledger=refusal.ledger,
        timestamp=refusal.event_at or refusal.first_seen_at,
    )


def _find(session: Session, row_id: UUID) -> Conflict | OracleRefusal:
    conflict = session.get(Conflict, row_id, with_for_update=True)
    found = conflict or session.get(OracleRefusal, row_id, with_for_update=True)
    if found is None:
        raise LookupError(f"no conflict or oracle refusal {row_id}")
    return found


def _decide(row: Conflict | OracleRefusal, decision: str, decider: Decider) -> None:
    if row.decision is not None:
        raise DecisionRefusedError(f"{row.id} was {row.decision} before, by {row.decided_by}: {row.decided_why}")
    row.decision, row.decided_at = decision, utc_now()
    row.decided_by, row.decided_why = decider.who, decider.why


def _settled(verdict: ResolutionVerdict, market_id: str, outcome: str) -> Resolution:
    if verdict.resolution is not None:
        return verdict.resolution
    if verdict.state == "unknown":
        raise MarketNotFoundError(f"no market {market_id!r}")
    raise DecisionRefusedError(f"market {market_id!r} is not settled as {outcome!r}: {verdict.reason}")


def _action(name: str, decider: Decider, target: str) -> AdminAction:
    return AdminAction(action=name, actor=decider.who, ip="local", target=target)
