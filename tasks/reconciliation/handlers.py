"""The work of the reconciliation tasks: compare markets, complete reports, remove old ones."""

from typing import Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel

from tasks.reconciliation.clients import ChainReader, ChainSnapshot, ChainUnavailableError, MarketReading, StartRun
from tasks.reconciliation.models import MarketLine, Report
from tasks.reconciliation.payloads import CheckMarket, FinishReport, Reconcile
from taskyard import PermanentError

MAX_BLOCKS_BEHIND = 50  # of the last report: nodes behind one address differ by a few blocks

log = structlog.stdlib.get_logger(__name__)


class MarketNotFoundError(PermanentError):
    """There is no such market in the database."""

    dead_letter_reason = "not_found"


class ReportNotFoundError(PermanentError):
    """There is no such report: it was removed while its tasks were waiting."""


class ReportSummary(BaseModel):
    """State and totals of a report; amounts are smallest units as text."""

    report_id: UUID
    state: str  # running or completed
    status: str | None = None  # ok, partial or failed
    severity: str = "none"
    markets: int = 0
    drift: str = "0"


class MarketCheckResult(BaseModel):
    """The result of one market of a global run."""

    market_id: str
    status: str  # ok, partial, or already_done
    severity: str = "none"


class SweepResult(BaseModel):
    """What one sweep did."""

    pruned: int  # reports


class ReportBooks(Protocol):
    """What the handlers need of SQL; see :class:`tasks.reconciliation.store.ReportStore`."""

    def find(self, report_id: UUID) -> Report | None:
        """Return the report."""

    def pending_line(self, report_id: UUID, market_id: str) -> tuple[Report | None, bool]:
        """Return the report, and whether this market of it is pending."""

    def has_market(self, market_id: str) -> bool:
        """Return whether there is such a market."""

    def last_block(self) -> int | None:
        """Return the block of the newest report that has one."""

    def open_global(self, report_id: UUID, request: Reconcile, at: ChainSnapshot | str, start: StartRun) -> Report:
        """Write a report with a line for every market, and start its run."""

    def record(self, report_id: UUID, market_id: str, outcome: MarketReading | str) -> MarketLine | None:
        """Write a market's comparison."""

    def record_market(self, report_id: UUID, request: Reconcile, outcome: MarketReading | str) -> Report:
        """Write a whole report of one market."""

    def complete(self, report_id: UUID) -> Report | None:
        """Complete the report."""

    def prune(self) -> int:
        """Remove old reports."""


def reconcile(
    payload: Reconcile, report_id: UUID, store: ReportBooks, chain: ChainReader, start: StartRun
) -> ReportSummary:
    """
    Compare one market at once, or start a run over all of them.

    Runs twice safely: the report's id comes from the run's, and what follows is stored with the report, so a second
    execution finds what the first one began.

    Raises:
        MarketNotFoundError: There is no such market.
    """
    report = store.find(report_id)
    if report is None and payload.type == "market":
        report = _reconcile_market(payload, report_id, store, chain)
    return summarize(report or _reconcile_all(payload, report_id, store, chain, start))


def check_market(payload: CheckMarket, store: ReportBooks, chain: ChainReader) -> MarketCheckResult:
    """
    Compare one market of a global run; one that cannot be read is a ``partial`` line, not the run's end.

    Runs twice safely: a line is written while it is pending, and only then.

    Raises:
        ReportNotFoundError: The report was removed meanwhile.
    """
    report, is_pending = store.pending_line(payload.report_id, payload.market_id)
    if report is None:
        raise ReportNotFoundError(f"no reconciliation report {payload.report_id}")
    if not is_pending:
        return MarketCheckResult(market_id=payload.market_id, status="already_done")
    at = ChainSnapshot(report.source or "", report.block or 0, report.block_hash or "")
    line = store.record(payload.report_id, payload.market_id, _read(payload.market_id, chain, at))
    if line is None:
        return MarketCheckResult(market_id=payload.market_id, status="already_done")
    log.info("reconciliation.compared", report_id=str(report.id), market_id=line.market_id, status=line.status)
    return MarketCheckResult(market_id=line.market_id, status=line.status or "", severity=line.severity)


def finish(payload: FinishReport, store: ReportBooks) -> ReportSummary:
    """
    Complete a report whose markets have ended, or whose deadline is over: those without an answer have failed.

    Runs twice safely: a completed report is not touched, and its alert has a key of its own.

    Raises:
        ReportNotFoundError: The report was removed meanwhile.
    """
    report = store.complete(payload.report_id)
    if report is None:
        raise ReportNotFoundError(f"no reconciliation report {payload.report_id}")
    done = summarize(report)
    log.info("reconciliation.reported", **done.model_dump(mode="json"))
    return done


def sweep(store: ReportBooks) -> SweepResult:
    """Remove old reports. Runs twice safely."""
    return SweepResult(pruned=store.prune())


def summarize(report: Report) -> ReportSummary:
    """Return the state and totals of a report."""
    return ReportSummary(
        report_id=report.id,
        state=report.state,
        status=report.status,
        severity=report.severity,
        markets=report.markets,
        drift=str(report.drift),
    )


def _reconcile_market(payload: Reconcile, report_id: UUID, store: ReportBooks, chain: ChainReader) -> Report:
    market_id = payload.market_id or ""
    if not store.has_market(market_id):
        raise MarketNotFoundError(f"no market {market_id!r}")
    try:
        outcome = _read(market_id, chain, _snapshot(store, chain))
    except ChainUnavailableError as error:
        outcome = str(error)
    return store.record_market(report_id, payload, outcome)


def _reconcile_all(
    payload: Reconcile, report_id: UUID, store: ReportBooks, chain: ChainReader, start: StartRun
) -> Report:
    at: ChainSnapshot | str
    try:
        at = _snapshot(store, chain)
    except ChainUnavailableError as error:
        log.warning("reconciliation.chain_unavailable", report_id=str(report_id), error=str(error))
        at = str(error)
    return store.open_global(report_id, payload, at, start)


def _snapshot(store: ReportBooks, chain: ChainReader) -> ChainSnapshot:
    """
    Return the state to read at.

    Raises:
        ChainUnavailableError: The node cannot be read, or is far behind the last report.
    """
    at, last = chain.snapshot(), store.last_block()
    if last is not None and at.block < last - MAX_BLOCKS_BEHIND:
        raise ChainUnavailableError(f"the node is at block {at.block}; the last report was of block {last}")
    return at


def _read(market_id: str, chain: ChainReader, at: ChainSnapshot) -> MarketReading | str:
    """Return the chain's side, or why it could not be read."""
    try:
        return chain.positions(market_id, at)
    except ChainUnavailableError as error:
        return str(error)
