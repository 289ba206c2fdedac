"""The SQL of recovering global runs: lost markets, reports to complete, old reports."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlmodel import Session, col

from config.settings import ReconciliationSettings
from tasks.reconciliation.models import MarketLine, ReconciliationReport
from taskyard.database.columns import utc_now

MAX_SENDS = 3  # of one market; then it waits for the report's deadline
PRUNE_BATCH = 50  # reports, with all their rows


class LostMarket(NamedTuple):
    """A market of a running report whose task seems lost."""

    report_id: UUID
    market_id: str


class RecoveryStore:
    """Finds what a lost worker or broker left unfinished; every method is one transaction."""

    def __init__(self, open_session: Callable[[], Session], settings: ReconciliationSettings) -> None:
        self._open_session, self._settings = open_session, settings

    def running(self) -> list[UUID]:
        """Return the reports that are not completed."""
        with self._open_session() as session:
            return list(
                session.scalars(
                    select(col(ReconciliationReport.id)).where(col(ReconciliationReport.state) == "running")
                )
            )

    def lost(self, limit: int) -> list[LostMarket]:
        """Return markets without an answer since they were last sent, and mark them as sent now."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            rows = session.execute(
                select(col(MarketLine.report_id), col(MarketLine.market_id))
                .join(ReconciliationReport, col(ReconciliationReport.id) == col(MarketLine.report_id))
                .where(
                    col(ReconciliationReport.state) == "running",
                    col(MarketLine.state) == "pending",
                    col(MarketLine.sends) < MAX_SENDS,
                    col(MarketLine.sent_at) <= now - self._settings.reconciliation_member_timeout,
                )
                .order_by(col(MarketLine.sent_at))
                .limit(limit)
                .with_for_update(skip_locked=True, of=MarketLine)
            ).all()
            for row in rows:
                session.execute(
                    update(MarketLine)
                    .where(col(MarketLine.report_id) == row.report_id, col(MarketLine.market_id) == row.market_id)
                    .values(sent_at=now, sends=col(MarketLine.sends) + 1)
                )
            return [LostMarket(row.report_id, row.market_id) for row in rows]

    def prune(self) -> int:
        """Remove reports that are older than the retention, with their lines and positions; return how many."""
        days = self._settings.reconciliation_retention_days
        if not days:
            return 0
        with self._open_session() as session, session.begin():
            old = session.scalars(
                select(col(ReconciliationReport.id))
                .where(
                    col(ReconciliationReport.state) == "completed",
                    col(ReconciliationReport.started_at) < utc_now() - timedelta(days=days),
                )
                .order_by(col(ReconciliationReport.started_at))
                .limit(PRUNE_BATCH)
            ).all()
            if old:
                session.execute(delete(ReconciliationReport).where(col(ReconciliationReport.id).in_(old)))
            return len(old)
