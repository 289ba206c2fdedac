"""What operators see of reports, their markets and their positions: read only; amounts are smallest units as text."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import case, func, select
from sqlmodel import Session, col

from tasks.reconciliation.models import MarketLine, PositionRow, Report
from taskyard.database.paging import PAGE, BadCursorError, Page, read_cursor, write_cursor


class UnknownReportError(LookupError):
    """There is no such report."""


class ReportView(BaseModel):
    """A report."""

    id: UUID
    scope: str
    state: str
    status: str | None
    severity: str
    source: str | None
    block: int | None
    block_hash: str | None
    markets: int
    pending: int  # markets
    markets_ok: int
    markets_partial: int
    markets_failed: int
    keys: int
    matches: int
    mismatches: int
    missing_on_chain: int
    missing_in_db: int
    left_out: int  # confirmed predictions of later ledgers than the chain was read at
    db_total: str
    chain_total: str
    drift: str
    drift_bp: int
    event_id: str | None
    correlation_id: str | None
    started_at: datetime
    completed_at: datetime | None


class LineView(BaseModel):
    """One market of a report."""

    market_id: str
    status: str | None  # None: pending
    severity: str
    keys: int
    mismatches: int
    missing_on_chain: int
    missing_in_db: int
    left_out: int
    db_total: str | None
    chain_total: str | None
    drift: str | None
    block: int | None
    error: str | None


class DriftView(BaseModel):
    """One position whose sides differ."""

    market_id: str
    address: str
    outcome: str
    kind: str
    db_amount: str
    chain_amount: str | None
    difference: str | None
    severity: str


def find_report(session: Session, report_id: UUID | None = None) -> ReportView:
    """
    Return one report, or the newest.

    Raises:
        UnknownReportError: There is none.
    """
    query = select(Report).order_by(col(Report.started_at).desc(), col(Report.id).desc()).limit(1)
    if report_id is not None:
        query = query.where(col(Report.id) == report_id)
    report = session.scalar(query)
    if report is None:
        raise UnknownReportError(
            f"no reconciliation report {report_id}" if report_id else "no reconciliation report yet"
        )
    pending = session.scalar(
        select(func.count()).where(col(MarketLine.report_id) == report.id, col(MarketLine.state) == "pending")
    )
    return ReportView(**_texts(report, "db_total", "chain_total", "drift"), pending=pending or 0)


def list_lines(session: Session, report_id: UUID, *, everything: bool, limit: int) -> list[LineView]:
    """Return markets of a report, those without an answer first; without ``everything`` only those that need a look."""
    query = (
        select(MarketLine)
        .where(col(MarketLine.report_id) == report_id)
        .order_by(case((col(MarketLine.status) == "ok", 1), else_=0), col(MarketLine.market_id))
        .limit(limit)
    )
    if not everything:
        query = query.where((col(MarketLine.status).is_distinct_from("ok")) | (col(MarketLine.severity) != "none"))
    return [LineView(**_texts(line, "db_total", "chain_total", "drift")) for line in session.scalars(query)]


def has_line(session: Session, report_id: UUID, market_id: str) -> bool:
    """Return whether a market is part of a report."""
    return session.get(MarketLine, (report_id, market_id)) is not None


def list_drifts(
    session: Session, report_id: UUID, market_id: str | None = None, *, limit: int = PAGE, after: str | None = None
) -> Page[DriftView]:
    """
    Return a page of the positions of a report that differ, in the order of their comparison.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
        UnknownReportError: There is no such report.
    """
    report = find_report(session, report_id)
    query = select(PositionRow).where(col(PositionRow.report_id) == report_id, col(PositionRow.kind) != "match")
    if market_id is not None:
        query = query.where(col(PositionRow.market_id) == market_id)
    if after is not None:
        _, last = read_cursor(after)
        if not last.isdecimal():
            raise BadCursorError(f"{after!r} is no cursor of this listing")
        query = query.where(col(PositionRow.id) > int(last))
    rows = session.scalars(query.order_by(col(PositionRow.id)).limit(limit + 1)).all()
    shown = [DriftView(**_texts(row, "db_amount", "chain_amount", "difference")) for row in rows[:limit]]
    return Page(shown, write_cursor(report.started_at, str(rows[limit - 1].id)) if len(rows) > limit else None)


def _texts(row: Report | MarketLine | PositionRow, *amounts: str) -> dict[str, Any]:
    """Return a row's columns with these amounts as text."""
    columns = row.model_dump()
    return {name: str(value) if name in amounts and value is not None else value for name, value in columns.items()}
