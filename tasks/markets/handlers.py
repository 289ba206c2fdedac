"""The work of the market tasks: resolve a market, confirm predictions."""

from collections.abc import Callable
from typing import Protocol

import structlog
from pydantic import BaseModel

from config.settings import MarketSettings
from tasks.markets.confirmations import ConfirmationBatch
from tasks.markets.payloads import ResolveMarket
from tasks.markets.store import ResolutionVerdict
from taskyard import PermanentError, Snooze

CONFIRM_BATCH = 500
MAX_CONFIRMATIONS = 20_000  # in one run; the next one continues

log = structlog.stdlib.get_logger(__name__)


class UnknownMarketError(LookupError):
    """There is no such market yet: the indexer's event may be ahead of the market's row."""


class UnknownOutcomeError(PermanentError):
    """The market has no such outcome; resolving it would refund everybody for a typing error."""


class OracleRefusedError(PermanentError):
    """The oracle guard did not let the event through; the quotes in it will not get better."""


class ResolveResult(BaseModel):
    """The result of one event; amounts are smallest units as text."""

    state: str  # resolved, already_resolved or conflict
    kind: str | None = None  # shared, void or no_winner
    won: int = 0  # predictions, as the next three
    lost: int = 0
    refunded: int = 0
    rejected: int = 0
    pool: str | None = None
    fee: str | None = None
    event_id: str | None = None  # of `market.resolved`


class ConfirmResult(BaseModel):
    """What one run of the confirmer did; counts of predictions."""

    confirmed: int
    rejected: int
    waiting: int
    failed: int


class MarketResolver(Protocol):
    """What :func:`resolve` needs of SQL; see :class:`tasks.markets.store.MarketStore`."""

    def resolve(self, event: ResolveMarket) -> ResolutionVerdict:
        """Settle the market, or say why nothing was changed."""


class PredictionConfirmer(Protocol):
    """What :func:`confirm` needs of SQL; see :class:`tasks.markets.confirmations.ConfirmationStore`."""

    def confirm(self, limit: int) -> ConfirmationBatch:
        """Confirm predictions whose transaction was seen."""

    def note_missing(self, limit: int) -> ConfirmationBatch:
        """Count an attempt for those that are due and not seen."""


def resolve(payload: ResolveMarket, store: MarketResolver, settings: MarketSettings) -> ResolveResult:
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


def confirm(store: PredictionConfirmer) -> ConfirmResult:
    """
    Look once for the transaction of every prediction that waits for it.

    Runs twice safely, and beside itself: a prediction changes only from a state that it is still in.
    """
    ticks = [*_batches(store.confirm), *_batches(store.note_missing)]
    done = ConfirmResult(
        confirmed=sum(tick.confirmed for tick in ticks),
        rejected=sum(tick.rejected for tick in ticks),
        waiting=sum(tick.waiting for tick in ticks),
        failed=sum(tick.failed for tick in ticks),
    )
    if ticks:
        log.info("predictions.confirmed", **done.model_dump())
    return done


def _settled(payload: ResolveMarket, verdict: ResolutionVerdict) -> ResolveResult:
    facts = {"market_id": payload.market_id, "winning_outcome": payload.winning_outcome, "ledger": payload.ledger}
    if verdict.state == "conflict":
        log.error("market.conflict", **facts, reason=verdict.reason)
    row = verdict.resolution
    if row is None:
        return ResolveResult(state=verdict.state)
    done = ResolveResult(
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


def _batches(step: Callable[[int], ConfirmationBatch]) -> list[ConfirmationBatch]:
    """Repeat a step while it finds work, up to the limit of one run."""
    ticks: list[ConfirmationBatch] = []
    while sum(tick.total for tick in ticks) < MAX_CONFIRMATIONS and (tick := step(CONFIRM_BATCH)).total:
        ticks.append(tick)
    return ticks
