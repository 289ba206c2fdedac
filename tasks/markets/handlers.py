"""The work of the market tasks: resolve a market, confirm predictions."""

from collections.abc import Callable
from typing import Protocol

import structlog
from pydantic import BaseModel

from config.settings import MarketSettings
from tasks.markets.confirmations import Tick
from tasks.markets.payloads import ResolveMarket
from tasks.markets.store import Verdict
from taskyard import PermanentError, Snooze

CONFIRM_BATCH = 500
CONFIRM_MOST = 20_000  # of one tick; the next one goes on

log = structlog.stdlib.get_logger(__name__)


class UnknownMarketError(LookupError):
    """There is no such market yet: the indexer's event may be ahead of the market's row."""


class UnknownOutcomeError(PermanentError):
    """The market has no such outcome; resolving it would refund everybody for a typing error."""


class OracleRefusedError(PermanentError):
    """The oracle guard did not let the event through; the quotes in it will not get better."""


class Resolved(BaseModel):
    """What one event came to; amounts are smallest units as text."""

    state: str  # resolved, already_resolved or conflict
    kind: str | None = None  # shared, void or no_winner
    won: int = 0  # predictions, as the next three
    lost: int = 0
    refunded: int = 0
    rejected: int = 0
    pool: str | None = None
    fee: str | None = None
    event_id: str | None = None  # of `market.resolved`


class Confirmed(BaseModel):
    """What one tick of the confirmer did; counts of predictions."""

    confirmed: int
    rejected: int
    waiting: int
    failed: int


class Resolver(Protocol):
    """What :func:`resolve` needs of SQL; see :class:`tasks.markets.store.MarketStore`."""

    def resolve(self, event: ResolveMarket) -> Verdict:
        """Settle the market, or say why nothing was changed."""


class Confirmer(Protocol):
    """What :func:`confirm` needs of SQL; see :class:`tasks.markets.confirmations.ConfirmationStore`."""

    def confirm(self, limit: int) -> Tick:
        """Confirm predictions whose transaction was seen."""

    def note_missing(self, limit: int) -> Tick:
        """Count a look for those that are due and not seen."""


def resolve(payload: ResolveMarket, store: Resolver, settings: MarketSettings) -> Resolved:
    """
    Settle the market, once and for all.

    Runs twice safely: the market's row is locked, and a resolved market is only compared with the event.

    Raises:
        UnknownMarketError: No such market yet; tried again with growing pauses.
        Snooze: The market is disputed; the event waits for the dispute's end.
        UnknownOutcomeError: The market has no such outcome.
        OracleRefusedError: The oracle guard is on and refuses the quotes.
    """
    verdict = store.resolve(payload)
    if verdict.state == "unknown":
        raise UnknownMarketError(f"no market {payload.market_id!r}")
    if verdict.state == "disputed":
        raise Snooze(settings.market_dispute_recheck, f"market {payload.market_id!r} is disputed")
    if verdict.state == "unknown_outcome":
        raise UnknownOutcomeError(
            f"market {payload.market_id!r} has no outcome {payload.winning_outcome!r}: {verdict.reason}"
        )
    if verdict.state == "refused":
        raise OracleRefusedError(f"market {payload.market_id!r} is not resolved: {verdict.reason}")
    return _settled(payload, verdict)


def confirm(store: Confirmer) -> Confirmed:
    """
    Look once for the transaction of every prediction that waits for it.

    Runs twice safely, and beside itself: a prediction changes only from a state that it is still in.
    """
    ticks = [*_batches(store.confirm), *_batches(store.note_missing)]
    done = Confirmed(
        confirmed=sum(tick.confirmed for tick in ticks),
        rejected=sum(tick.rejected for tick in ticks),
        waiting=sum(tick.waiting for tick in ticks),
        failed=sum(tick.failed for tick in ticks),
    )
    if ticks:
        log.info("predictions.confirmed", **done.model_dump())
    return done


def _settled(payload: ResolveMarket, verdict: Verdict) -> Resolved:
    facts = {"market_id": payload.market_id, "winning_outcome": payload.winning_outcome, "ledger": payload.ledger}
    if verdict.state == "conflict":
        log.error("market.conflict", **facts, reason=verdict.reason)
    row = verdict.resolution
    if row is None:
        return Resolved(state=verdict.state)
    done = Resolved(
        state=verdict.state,
        kind=row.kind,
        won=row.won,
        lost=row.lost,
        refunded=row.refunded,
        rejected=row.rejected,
        pool=str(row.pool),
        fee=str(row.fee),
        event_id=row.event_id,
    )
    log.info("market.resolved", **facts, **done.model_dump(exclude={"state"}))
    return done


def _batches(step: Callable[[int], Tick]) -> list[Tick]:
    """Repeat a step while it finds work, up to what one tick may do."""
    ticks: list[Tick] = []
    while sum(tick.total for tick in ticks) < CONFIRM_MOST and (tick := step(CONFIRM_BATCH)).total:
        ticks.append(tick)
    return ticks
