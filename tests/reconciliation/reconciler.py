"""Reconcile in this process, without a broker: the handlers on a real database and a real node."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlmodel import Session, col

from audit.models import AdminAction
from config.settings import ReconciliationSettings
from tasks.markets import positions
from tasks.reconciliation import handlers
from tasks.reconciliation.chain.readers import open_chain
from tasks.reconciliation.clients import EmitEvent
from tasks.reconciliation.models import MarketLine, PositionRow, Report
from tasks.reconciliation.payloads import CheckMarket, FinishReport, Reconcile
from tasks.reconciliation.store import ReportStore
from tests.markets.market_rows import MarketRows

ADMIN = {"admin_address": "GADMIN", "ip": "192.0.2.7", "correlation_id": "corr-1"}


class Reconciler:
    """Reports on the markets of one database; the markets whose flow was started are in `started`."""

    def __init__(self, market_rows: MarketRows, **settings: Any) -> None:
        self.market_rows = market_rows
        self.settings = ReconciliationSettings(**settings)
        self.chain = open_chain(self.settings)
        self.store = ReportStore(
            market_rows.database.session, self.settings, positions, market_rows.emit, self.chain.normal_address
        )
        self.started: list[str] = []

    def store_with(self, emit: EmitEvent) -> ReportStore:
        """Return a store that announces drift in this way."""
        open_session, settings = self.market_rows.database.session, self.settings
        return ReportStore(open_session, settings, positions, emit, self.chain.normal_address)

    def market(self, market_id: str = "m", report_id: UUID | None = None) -> handlers.ReportSummary:
        """Reconcile one market, as an administrator."""
        return self._reconcile(Reconcile(type="market", market_id=market_id, **ADMIN), report_id)

    def run(self, report_id: UUID | None = None) -> handlers.ReportSummary:
        """Start a run over all markets."""
        return self._reconcile(Reconcile(type="global", correlation_id="nightly"), report_id)

    def check(self, report_id: UUID, *market_ids: str) -> list[handlers.MarketCheckResult]:
        """Do what the flow's members would."""
        wanted = [CheckMarket(report_id=report_id, market_id=market_id) for market_id in market_ids]
        return [handlers.check_market(payload, self.store, self.chain) for payload in wanted]

    def finish(self, report_id: UUID) -> handlers.ReportSummary:
        """Do what the flow's last step would."""
        return handlers.finish(FinishReport(report_id=report_id), self.store)

    def sweep(self) -> handlers.SweepResult:
        """Remove old reports."""
        return handlers.sweep(self.store)

    def report(self, report_id: UUID) -> Report:
        """A report as it is now."""
        with self.market_rows.database.session() as session:
            return session.get_one(Report, report_id)

    def lines(self, report_id: UUID) -> dict[str, MarketLine]:
        """A report's markets."""
        with self.market_rows.database.session() as session:
            found = session.scalars(select(MarketLine).where(col(MarketLine.report_id) == report_id))
            return {line.market_id: line for line in found}

    def rows(self, report_id: UUID) -> list[PositionRow]:
        """A report's positions, in the order of their comparison."""
        with self.market_rows.database.session() as session:
            query = select(PositionRow).where(col(PositionRow.report_id) == report_id).order_by(col(PositionRow.id))
            return list(session.scalars(query))

    def actions(self) -> list[AdminAction]:
        """Who asked for what."""
        with self.market_rows.database.session() as session:
            return list(session.scalars(select(AdminAction)))

    def _reconcile(self, payload: Reconcile, report_id: UUID | None) -> handlers.ReportSummary:
        return handlers.reconcile(payload, report_id or uuid4(), self.store, self.chain, self._start)

    def _start(self, session: Session, report_id: UUID, market_ids: Sequence[str]) -> None:
        assert session.get(Report, report_id) is not None
        self.started.extend(market_ids)
