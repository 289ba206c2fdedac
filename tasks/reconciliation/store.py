"""The SQL of a reconciliation: open a report, write a market's comparison, complete the report; each a transaction."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlmodel import Session, col

from audit.models import AdminAction
from config.settings import ReconciliationSettings
from tasks.reconciliation.clients import ChainSnapshot, EmitEvent, MarketReading, PositionsBook, StartRun
from tasks.reconciliation.comparison import ComparedPosition, DriftThresholds, PositionTotals, compare, with_addresses
from tasks.reconciliation.completion import complete
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from tasks.reconciliation.payloads import Reconcile
from taskyard.database.columns import utc_now

INSPECT_MARKET = "admin.reconciliation.market.inspect"
RUN_GLOBAL = "admin.reconciliation.global.run"
PRUNE_BATCH = 50  # reports, with all their rows


class ReportStore:
    """Writes reports."""

    def __init__(
        self,
        open_session: Callable[[], Session],
        settings: ReconciliationSettings,
        database: PositionsBook,
        emit: EmitEvent,
        normal_address: Callable[[str], str],
    ) -> None:
        self._open_session, self._settings = open_session, settings
        self._database, self._emit = database, emit
        self._normal_address = normal_address
        self._thresholds = DriftThresholds(settings.reconciliation_tolerance, settings.reconciliation_critical_bp)

    def find(self, report_id: UUID) -> Report | None:
        """Return the report; None: there is none yet."""
        with self._open_session() as session:
            return session.get(Report, report_id)

    def pending_line(self, report_id: UUID, market_id: str) -> tuple[Report | None, bool]:
        """Return the report, if there is one, and whether this market of it is still pending."""
        with self._open_session() as session:
            line = session.get(MarketLine, (report_id, market_id))
            return session.get(Report, report_id), line is not None and line.state == "pending"

    def has_market(self, market_id: str) -> bool:
        """Return whether there is such a market."""
        with self._open_session() as session:
            return self._database.has_market(session, market_id)

    def last_block(self) -> int | None:
        """Return the block or ledger of the newest report that has one; None: there is none yet."""
        newest = select(col(Report.block)).where(col(Report.block).is_not(None)).order_by(col(Report.started_at).desc())
        with self._open_session() as session:
            return session.scalar(newest.limit(1))

    def open_global(self, report_id: UUID, request: Reconcile, at: ChainSnapshot | str, start: StartRun) -> Report:
        """
        Write the report with a line for every market, who asked, and what compares them, in one transaction.

        Without a snapshot the chain is not readable, for the reason that is given: the report is complete at once, all
        its lines ``partial``.
        """
        now = utc_now()
        with self._open_session() as session, session.begin():
            markets = self._database.market_ids(session)
            report = _new_report(report_id, request, None if isinstance(at, str) else at, now, len(markets))
            session.add(report)
            session.add(_action(RUN_GLOBAL, request, str(report_id)))
            session.flush()
            done = {"state": "done", "status": "partial", "error": at, "done_at": now} if isinstance(at, str) else {}
            if markets:
                lines = [{"report_id": report_id, "market_id": market_id, **done} for market_id in markets]
                session.execute(insert(MarketLine), lines)
            if done or not markets:
                complete(session, report, self._emit, now)
            else:
                start(session, report_id, markets)
            return report

    def record(self, report_id: UUID, market_id: str, outcome: MarketReading | str) -> MarketLine | None:
        """
        Write a market's comparison, or the reason why the chain could not be read; None: it was done before.

        The database's side is read in the same transaction, up to the ledger of the chain's side.
        """
        with self._open_session() as session, session.begin():
            line = session.scalar(
                select(MarketLine)
                .where(col(MarketLine.report_id) == report_id, col(MarketLine.market_id) == market_id)
                .with_for_update()
            )
            if line is None or line.state == "done":
                return None
            self._fill(session, line, outcome)
            return line

    def record_market(self, report_id: UUID, request: Reconcile, outcome: MarketReading | str) -> Report:
        """Write a whole report of one market, who asked, and the alert if there is one, in one transaction."""
        now = utc_now()
        at = outcome.at if isinstance(outcome, MarketReading) else None
        with self._open_session() as session, session.begin():
            report = _new_report(report_id, request, at, now, 1)
            session.add(report)
            session.add(_action(INSPECT_MARKET, request, request.market_id))
            session.flush()
            line = MarketLine(report_id=report_id, market_id=request.market_id or "")
            session.add(line)
            session.flush()
            self._fill(session, line, outcome)
            complete(session, report, self._emit, now)
            return report

    def complete(self, report_id: UUID) -> Report | None:
        """
        Complete the report; None: there is no such report.

        A market without an answer is a ``failed`` line. A completed report is left as it is.
        """
        with self._open_session() as session, session.begin():
            report = session.scalar(select(Report).where(col(Report.id) == report_id).with_for_update())
            if report is not None and report.state != "completed":
                complete(session, report, self._emit, utc_now())
            return report

    def prune(self) -> int:
        """Remove reports that are older than the retention, with their lines and positions; return how many."""
        days = self._settings.reconciliation_retention_days
        if not days:
            return 0
        with self._open_session() as session, session.begin():
            old = session.scalars(
                select(col(Report.id))
                .where(col(Report.started_at) < utc_now() - timedelta(days=days))
                .order_by(col(Report.started_at))
                .limit(PRUNE_BATCH)
            ).all()
            if old:
                session.execute(delete(Report).where(col(Report.id).in_(old)))
            return len(old)

    def _fill(self, session: Session, line: MarketLine, outcome: MarketReading | str) -> None:
        if isinstance(outcome, str):
            _mark_partial(line, outcome)
            return
        ours = self._database.positions(session, line.market_id, outcome.at.block)
        theirs = with_addresses(outcome.positions, self._normal_address)
        rows, totals = compare(with_addresses(ours, self._normal_address), theirs, self._thresholds)
        if rows:
            session.execute(insert(PositionRow), [_columns(line, row) for row in rows])
        line.left_out = self._database.left_out(session, line.market_id, outcome.at.block)
        _mark_compared(line, totals, outcome.at)


def _mark_partial(line: MarketLine, error: str) -> None:
    line.state, line.status, line.error, line.done_at = "done", "partial", error, utc_now()


def _mark_compared(line: MarketLine, totals: PositionTotals, at: ChainSnapshot) -> None:
    line.state, line.status, line.block, line.done_at = "done", "ok", at.block, utc_now()
    line.keys, line.matches, line.mismatches = totals.keys, totals.matches, totals.mismatches
    line.missing_on_chain, line.missing_in_db = totals.missing_on_chain, totals.missing_in_db
    line.db_total, line.chain_total = totals.db_total, totals.chain_total
    line.drift, line.severity = totals.drift, totals.severity


def _new_report(report_id: UUID, request: Reconcile, at: ChainSnapshot | None, now: datetime, markets: int) -> Report:
    return Report(
        id=report_id,
        scope=request.type,
        correlation_id=request.correlation_id,
        source=at.source if at else None,
        block=at.block if at else None,
        block_hash=(at.block_hash or None) if at else None,
        markets=markets,
        started_at=now,
    )


def _action(name: str, request: Reconcile, target: str | None) -> AdminAction:
    return AdminAction(
        action=name,
        actor=request.admin_address,
        ip=request.ip,
        correlation_id=request.correlation_id,
        target=target,
    )


def _columns(line: MarketLine, row: ComparedPosition) -> dict[str, Any]:
    return {"report_id": line.report_id, "market_id": line.market_id, **row._asdict()}
