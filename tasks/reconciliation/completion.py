"""Complete a report: sum up its markets, and announce drift, in the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import select, update
from sqlmodel import Session, col

from tasks.reconciliation.clients import EmitEvent
from tasks.reconciliation.comparison import ALERTING, SEVERITIES, PositionTotals, Severity
from tasks.reconciliation.models import MarketLine, Report

DRIFT_EVENT = "reconciliation.drift"
INCOMPLETE_EVENT = "reconciliation.incomplete"
NAMED_MARKETS = 20  # in the event, the worst first; the report has all


def complete(session: Session, report: Report, emit: EmitEvent, now: datetime) -> None:
    """
    Fill the report from its lines and mark it completed; the caller holds its lock.

    Lines that are still pending have no answer, because of their task or the deadline: they become ``failed``.
    """
    session.flush()
    session.execute(
        update(MarketLine)
        .where(col(MarketLine.report_id) == report.id, col(MarketLine.state) == "pending")
        .values(
            state="done", status="failed", error="not compared: its task failed, or the deadline was over", done_at=now
        )
    )
    lines = session.scalars(
        select(MarketLine).where(col(MarketLine.report_id) == report.id).execution_options(populate_existing=True)
    ).all()
    statuses = [line.status for line in lines]
    report.markets_ok, report.markets_partial = statuses.count("ok"), statuses.count("partial")
    report.markets_failed = statuses.count("failed")
    report.left_out = sum(line.left_out for line in lines)
    _fill_totals(report, sum(map(_totals, lines), PositionTotals()))
    report.state, report.completed_at = "completed", now
    report.status = "ok" if report.markets_ok == len(lines) else "partial"
    if report.status != "ok":
        emit(session, INCOMPLETE_EVENT, _incomplete(report, lines), f"{INCOMPLETE_EVENT}:{report.id}")
    if report.severity in ALERTING:
        report.event_id = emit(session, DRIFT_EVENT, _drift(report, lines), f"{DRIFT_EVENT}:{report.id}")


def _totals(line: MarketLine) -> PositionTotals:
    return PositionTotals(
        keys=line.keys,
        matches=line.matches,
        mismatches=line.mismatches,
        missing_on_chain=line.missing_on_chain,
        missing_in_db=line.missing_in_db,
        db_total=line.db_total or 0,
        chain_total=line.chain_total or 0,
        drift=line.drift or 0,
        severity=cast("Severity", line.severity),
    )


def _fill_totals(report: Report, totals: PositionTotals) -> None:
    report.keys, report.matches, report.mismatches = totals.keys, totals.matches, totals.mismatches
    report.missing_on_chain, report.missing_in_db = totals.missing_on_chain, totals.missing_in_db
    report.db_total, report.chain_total = totals.db_total, totals.chain_total
    report.drift, report.drift_bp, report.severity = totals.drift, totals.drift_bp, totals.severity


def _incomplete(report: Report, lines: Sequence[MarketLine]) -> dict[str, Any]:
    missing = [line for line in lines if line.status != "ok"]
    return {
        "report_id": str(report.id),
        "type": report.scope,
        "status": report.status,
        "markets": report.markets,
        "markets_partial": report.markets_partial,
        "markets_failed": report.markets_failed,
        "reasons": [
            {"market_id": line.market_id, "status": line.status, "error": line.error}
            for line in missing[:NAMED_MARKETS]
        ],
    }


def _drift(report: Report, lines: Sequence[MarketLine]) -> dict[str, Any]:
    drifting = [line for line in lines if line.severity in ALERTING]
    drifting.sort(key=lambda line: (-SEVERITIES.index(cast("Severity", line.severity)), -(line.drift or 0)))
    return {
        "report_id": str(report.id),
        "type": report.scope,
        "status": report.status,
        "severity": report.severity,
        "block": report.block,
        "drift": str(report.drift),
        "drift_bp": report.drift_bp,
        "markets_drifting": len(drifting),
        "markets": [
            {
                "market_id": line.market_id,
                "severity": line.severity,
                "drift": str(line.drift),
                "mismatches": line.mismatches,
                "missing_on_chain": line.missing_on_chain,
                "missing_in_db": line.missing_in_db,
            }
            for line in drifting[:NAMED_MARKETS]
        ],
    }
