"""The state of the reconciliation in numbers, for metrics."""

from collections.abc import Iterator

from sqlmodel import Session, col, select

from tasks.reconciliation.comparison import ALERTING
from tasks.reconciliation.models import Report
from taskyard.gauges import GaugeSample


def figures(session: Session) -> Iterator[GaugeSample]:
    """Give what the newest completed report on all markets found; nothing, when there is none."""
    query = select(Report).where(Report.scope == "global", Report.state == "completed")
    report = session.exec(query.order_by(col(Report.started_at).desc()).limit(1)).first()
    if report is None:
        return
    at = report.started_at.timestamp()
    yield GaugeSample("taskyard_reconciliation_last_seconds", "When the newest report was started (Unix)", at)
    yield GaugeSample("taskyard_reconciliation_ok", "1 if the newest report is whole", float(report.status == "ok"))
    found = float(report.severity in ALERTING)
    yield GaugeSample("taskyard_reconciliation_drift", "1 if the newest report found a drift that matters", found)
    left_out = float(report.left_out)
    yield GaugeSample("taskyard_reconciliation_left_out", "Predictions that the newest report left out", left_out)
    for kind in ("matches", "mismatches", "missing_on_chain", "missing_in_db"):
        value = float(getattr(report, kind))
        yield GaugeSample(
            "taskyard_reconciliation_positions", "Positions of the newest report", value, {"result": kind}
        )
