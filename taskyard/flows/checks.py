"""What `doctor` says of flows: which of them nobody looks after."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.database.engine import current_engine
from taskyard.findings import Finding
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import LIVE_FLOWS, RUNNABLE
from taskyard.settings.loading import current_settings

MOST_SHOWN = 3


def findings() -> Iterator[Finding]:
    """Look for overdue checks, which say that no sweeper runs, and for flows in which nothing can happen any more."""
    with Session(current_engine()) as session:
        yield _swept(session)
        yield _stuck(session)


def _swept(session: Session) -> Finding:
    limit = utc_now() - 3 * current_settings().flow_sweep_interval - timedelta(seconds=30)
    late = session.exec(select(func.count()).select_from(StepRow).where(col(StepRow.check_at) < limit)).one()
    if late:
        fix = "is beat running, and a worker on maintenance? (schedules show flows.sweep)"
        return Finding("flows", "fault", f"{late} steps are overdue: nobody sends lost ones again", fix)
    return Finding("flows", "ok", "no step is overdue")


def _stuck(session: Session) -> Finding:
    busy = select(col(StepRow.flow_id)).where(col(StepRow.state).in_(RUNNABLE))
    query = select(FlowRow.id).where(col(FlowRow.state).in_(LIVE_FLOWS), col(FlowRow.id).not_in(busy))
    stuck = session.exec(query.limit(MOST_SHOWN)).all()
    if stuck:
        ids = ", ".join(map(str, stuck))
        return Finding(
            "stuck flows", "fault", f"nothing of them runs: {ids}", "celery -A tasks flows show ID, then cancel"
        )
    return Finding("stuck flows", "ok", "none")
