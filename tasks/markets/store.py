"""The SQL of a resolution: lock the market, decide, classify every prediction, all in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal

from sqlalchemy import select
from sqlmodel import Session, col

from config.settings import MarketSettings
from tasks.markets.classification import classify
from tasks.markets.clients import EmitEvent
from tasks.markets.confirmations import confirm_seen
from tasks.markets.models import VOID, Conflict, Market, OracleRefusal, Prediction, Resolution
from tasks.markets.oracle_guard import OracleDecision, OracleRules, judge
from tasks.markets.payloads import ResolveMarket
from tasks.markets.payouts import Settlement, Stake, settle_pool
from taskyard.database.columns import utc_now

CONFLICT_EVENT = "market.resolution_conflict"
RESOLVED_EVENT = "market.resolved"

type VerdictState = Literal[
    "resolved", "already_resolved", "conflict", "disputed", "unknown", "unknown_outcome", "refused"
]


@dataclass(frozen=True, slots=True)
class ResolutionVerdict:
    """The decision on one event."""

    state: VerdictState
    reason: str = ""
    resolution: Resolution | None = None


class MarketStore:
    """Resolves markets; a resolution is one transaction."""

    def __init__(self, open_session: Callable[[], Session], settings: MarketSettings, emit: EmitEvent) -> None:
        self._open_session = open_session
        self._settings = settings
        self._emit = emit

    def resolve(self, event: ResolveMarket) -> ResolutionVerdict:
        """
        Settle the market, or say why nothing was changed.

        The market's row is locked first, and a prediction changes only under that lock, so each is classified once.
        """
        now = utc_now()
        with self._open_session() as session, session.begin():
            market = _locked(session, event.market_id)
            if market is None:
                return ResolutionVerdict("unknown")
            if market.state == "resolved":
                return self._compare(session, market, event, now)
            if market.state == "disputed":
                return ResolutionVerdict("disputed")
            if unknown := _unknown_outcome(market, event):
                return unknown
            decision = self.ask_guard(event)
            if not decision.is_accepted:
                _note_refusal(session, event, decision.reason, now)
                return ResolutionVerdict("refused", decision.reason)
            return ResolutionVerdict("resolved", resolution=self._settle(session, market, event, now, decision))

    def settle(self, session: Session, event: ResolveMarket) -> ResolutionVerdict:
        """Settle in the caller's transaction, as an operator decided: disputed or not, and without the guard."""
        market = _locked(session, event.market_id)
        if market is None:
            return ResolutionVerdict("unknown")
        if market.state == "resolved":
            return ResolutionVerdict("already_resolved", f"it is resolved as {market.winning_outcome!r}")
        if unknown := _unknown_outcome(market, event):
            return unknown
        decision = OracleDecision(is_accepted=True, reason="an operator decided")
        return ResolutionVerdict("resolved", resolution=self._settle(session, market, event, utc_now(), decision))

    def ask_guard(self, event: ResolveMarket) -> OracleDecision:
        """Return what the oracle guard says to the event's quotes now; nothing is written."""
        if not self._settings.market_oracle_guard:
            return OracleDecision(is_accepted=True, reason="the guard is off")
        return judge(event.quotes, event.timestamp, utc_now(), OracleRules.of(self._settings))

    def _settle(
        self, session: Session, market: Market, event: ResolveMarket, now: datetime, decision: OracleDecision
    ) -> Resolution:
        # The indexer may have seen a transaction that the confirmer's next tick would have found: it is in the pool.
        confirm_seen(session, self._emit, col(Prediction.market_id) == market.id, now)
        stakes = _stakes(session, market.id)
        settlement = settle_pool(stakes, event.winning_outcome, market.fee_bp)
        counts = classify(session, market.id, settlement)
        _mark_resolved(market, event.winning_outcome, now)
        resolution = Resolution(
            market_id=market.id,
            winning_outcome=event.winning_outcome,
            kind=settlement.kind,
            ledger=event.ledger,
            event_at=event.timestamp,
            pool=settlement.pool,
            fee=settlement.fee,
            paid=settlement.paid,
            won=counts.won,
            lost=counts.lost,
            refunded=counts.refunded,
            rejected=counts.rejected,
            oracle_fallback=decision.used_fallback,
            event_id=self._announce(session, event, settlement),
            resolved_at=now,
        )
        session.add(resolution)
        return resolution

    def _announce(self, session: Session, event: ResolveMarket, settlement: Settlement) -> str:
        data = {
            "market_id": event.market_id,
            "winning_outcome": event.winning_outcome,
            "ledger": event.ledger,
            "timestamp": event.timestamp,
            "kind": settlement.kind,
            "pool": str(settlement.pool),
            "fee": str(settlement.fee),
            "paid": str(settlement.paid),
        }
        return self._emit(session, RESOLVED_EVENT, data, _key(RESOLVED_EVENT, event.market_id))

    def _compare(self, session: Session, market: Market, event: ResolveMarket, now: datetime) -> ResolutionVerdict:
        """Compare with the resolution: the same outcome is a repetition, another one is a conflict."""
        if market.winning_outcome == event.winning_outcome:
            return ResolutionVerdict("already_resolved")
        same_claim = select(Conflict).where(
            col(Conflict.market_id) == market.id,
            col(Conflict.claimed_outcome) == event.winning_outcome,
            col(Conflict.ledger) == event.ledger,
        )
        conflict = session.scalar(same_claim)
        if conflict is not None:
            conflict.times_seen, conflict.last_seen_at = conflict.times_seen + 1, now
            return ResolutionVerdict("conflict", f"it was resolved as {market.winning_outcome!r}")
        conflict = Conflict(
            market_id=market.id,
            resolved_outcome=market.winning_outcome or "",
            claimed_outcome=event.winning_outcome,
            ledger=event.ledger,
            event_at=event.timestamp,
        )
        session.add(conflict)
        data = {
            "market_id": market.id,
            "resolved_outcome": conflict.resolved_outcome,
            "claimed_outcome": conflict.claimed_outcome,
            "ledger": conflict.ledger,
            "timestamp": event.timestamp,
        }
        self._emit(session, CONFLICT_EVENT, data, _key(CONFLICT_EVENT, str(conflict.id)))
        return ResolutionVerdict("conflict", f"it was resolved as {market.winning_outcome!r}")


def _locked(session: Session, market_id: str) -> Market | None:
    return session.scalar(select(Market).where(col(Market.id) == market_id).with_for_update())


def _unknown_outcome(market: Market, event: ResolveMarket) -> ResolutionVerdict | None:
    """Return the verdict on an outcome that the market does not have; None: it has it, or takes any."""
    if not market.outcomes or event.winning_outcome in (*market.outcomes, VOID):
        return None
    return ResolutionVerdict("unknown_outcome", f"its outcomes are {', '.join(map(repr, market.outcomes))}")


def _key(event_type: str, subject: str) -> str:
    """An idempotency key of at most 255 characters; a market's id alone may have as many."""
    return f"{event_type}:{sha256(subject.encode()).hexdigest()}"


def _mark_resolved(market: Market, winning_outcome: str, now: datetime) -> None:
    market.state, market.winning_outcome, market.resolved_at = "resolved", winning_outcome, now


def _stakes(session: Session, market_id: str) -> list[Stake]:
    confirmed = select(col(Prediction.id), col(Prediction.outcome), col(Prediction.amount)).where(
        col(Prediction.market_id) == market_id, col(Prediction.state) == "confirmed"
    )
    return [Stake(*row) for row in session.connection().execute(confirmed).all()]


def _note_refusal(session: Session, event: ResolveMarket, reason: str, now: datetime) -> None:
    """Record the refusal; the same event refused again, as after a redrive, only raises its count."""
    known = session.scalar(
        select(OracleRefusal).where(
            col(OracleRefusal.market_id) == event.market_id,
            col(OracleRefusal.claimed_outcome) == event.winning_outcome,
            col(OracleRefusal.ledger) == event.ledger,
        )
    )
    if known is not None:
        known.times_seen, known.last_seen_at, known.reason = known.times_seen + 1, now, reason
        return
    session.add(
        OracleRefusal(
            market_id=event.market_id,
            claimed_outcome=event.winning_outcome,
            ledger=event.ledger,
            event_at=event.timestamp,
            reason=reason,
        )
    )
