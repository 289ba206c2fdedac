"""The work of the reconciliation tasks: compare markets, complete reports, look after what was lost."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol
from uuid import UUID

import structlog
from pydantic import BaseModel

from tasks.reconciliation.clients import ChainSide, ChainUnavailableError, Reading, Snapshot
from tasks.reconciliation.models import MarketLine, Report
from tasks.reconciliation.payloads import CheckMarket, FinishReport, Reconcile
from tasks.reconciliation.recovery import Lost
from tasks.reconciliation.store import Opened
from taskyard import PermanentError

SWEEP_BATCH = 500

type Dispatch = Callable[[UUID, Sequence[str]], None]  # the report and its markets, as one chord

log = structlog.stdlib.get_logger(__name__)


class MarketNotFoundError(PermanentError):
    """There is no such market in the database."""

    dead_letter_reason = "not_found"


class ReportNotFoundError(PermanentError):
    """There is no such report: it was removed while its tasks were waiting."""


class Reported(BaseModel):
    """How a report stands; amounts are smallest units as text."""

    report_id: UUID
    state: str  # running or completed
    status: str | None = None  # ok, partial or failed
    severity: str = "none"
    markets: int = 0
    drift: str = "0"


class Checked(BaseModel):
    """What became of one market of a global run."""

    market_id: str
    status: str  # ok, partial, or already_done
    severity: str = "none"


class Swept(BaseModel):
    """What one sweep did."""

    completed: int  # reports
    sent: int  # markets
    pruned: int  # reports


class Reports(Protocol):
    """What the handlers need of SQL; see :class:`tasks.reconciliation.store.ReportStore`."""

    def find(self, report_id: UUID) -> Opened | None:
        """Return the report and its pending markets."""

    def pending_line(self, report_id: UUID, market_id: str) -> tuple[Report | None, bool]:
        """Return the report, and whether this market of it is pending."""

    def has_market(self, market_id: str) -> bool:
        """Return whether there is such a market."""

    def open_global(self, report_id: UUID, request: Reconcile, at: Snapshot | None, error: str | None) -> Opened:
        """Write a report with a line for every market."""

    def record(self, report_id: UUID, market_id: str, outcome: Reading | str) -> MarketLine | None:
        """Write a market's comparison."""

    def record_market(self, report_id: UUID, request: Reconcile, outcome: Reading | str) -> Report:
        """Write a whole report of one market."""

    def complete(self, report_id: UUID) -> Report | None:
        """Complete the report if nothing is pending."""


class Upkeep(Protocol):
    """What :func:`sweep` needs of SQL; see :class:`tasks.reconciliation.recovery.UpkeepStore`."""

    def running(self) -> list[UUID]:
        """Return the reports that are not completed."""

    def lost(self, limit: int) -> list[Lost]:
        """Return markets whose task seems lost."""

    def prune(self) -> int:
        """Remove old reports."""


def reconcile(payload: Reconcile, report_id: UUID, store: Reports, chain: ChainSide, dispatch: Dispatch) -> Reported:
    """
    Compare one market at once, or start a run over all of them.

    Runs twice safely: the report's id comes from the run's, so a second execution finds the first one's report and
    only sends what is pending.

    Raises:
        MarketNotFoundError: There is no such market.
    """
    known = store.find(report_id)
    if payload.type == "market":
        return reported(known.report if known else _reconcile_market(payload, report_id, store, chain))
    if known is None:
        try:
            known = store.open_global(report_id, payload, chain.snapshot(), None)
        except ChainUnavailableError as error:
            log.warning("reconciliation.chain_unavailable", report_id=str(report_id), error=str(error))
            known = store.open_global(report_id, payload, None, str(error))
    if known.report.state == "running" and known.pending:
        dispatch(report_id, known.pending)
        return reported(known.report)
    return finish(FinishReport(report_id=report_id), store)


def check_market(payload: CheckMarket, store: Reports, chain: ChainSide) -> Checked:
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
        return Checked(market_id=payload.market_id, status="already_done")
    at = Snapshot(report.source or "", report.block or 0, report.block_hash or "")
    line = store.record(payload.report_id, payload.market_id, _read(payload.market_id, chain, at))
    if line is None:
        return Checked(market_id=payload.market_id, status="already_done")
    log.info("reconciliation.compared", report_id=str(report.id), market_id=line.market_id, status=line.status)
    return Checked(market_id=line.market_id, status=line.status or "", severity=line.severity)


def finish(payload: FinishReport, store: Reports) -> Reported:
    """
    Complete a report whose markets are done; one with pending markets is left to the sweeper.

    Runs twice safely: a completed report is not touched, and its alert has a key of its own.

    Raises:
        ReportNotFoundError: The report was removed meanwhile.
    """
    report = store.complete(payload.report_id)
    if report is None:
        raise ReportNotFoundError(f"no reconciliation report {payload.report_id}")
    done = reported(report)
    log.info("reconciliation.reported", **done.model_dump(mode="json"))
    return done


def sweep(store: Reports, upkeep: Upkeep, send: Callable[[Iterable[Lost]], None]) -> Swept:
    """
    Complete the runs whose last step was lost, send lost markets again, remove old reports.

    Runs twice safely: every part acts on rows that are still in the state that asks for it.
    """
    lost = upkeep.lost(SWEEP_BATCH)
    if lost:
        send(lost)
    completed = [store.complete(report_id) for report_id in upkeep.running()]
    done = Swept(
        completed=sum(report is not None and report.state == "completed" for report in completed),
        sent=len(lost),
        pruned=upkeep.prune(),
    )
    if done.completed or done.sent or done.pruned:
        log.info("reconciliation.swept", **done.model_dump())
    return done


def reported(report: Report) -> Reported:
    """Say how a report stands."""
    return Reported(
        report_id=report.id,
        state=report.state,
        status=report.status,
        severity=report.severity,
        markets=report.markets,
        drift=str(report.drift),
    )


def _reconcile_market(payload: Reconcile, report_id: UUID, store: Reports, chain: ChainSide) -> Report:
    market_id = payload.market_id or ""
    if not store.has_market(market_id):
        raise MarketNotFoundError(f"no market {market_id!r}")
    try:
        outcome = _read(market_id, chain, chain.snapshot())
    except ChainUnavailableError as error:
        outcome = str(error)
    return store.record_market(report_id, payload, outcome)


def _read(market_id: str, chain: ChainSide, at: Snapshot) -> Reading | str:
    """Return the chain's side, or why it could not be read."""
    try:
        return chain.positions(market_id, at)
    except ChainUnavailableError as error:
        return str(error)
