"""What `doctor` says of flows: which of them nobody looks after."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.database.engine import current_engine
from taskyard.findings import Finding
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import LIVE_FLOWS, OPEN_STEPS, RUNNABLE
from taskyard.settings.loading import current_settings
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_task import PlatformTask

MOST_SHOWN = 3


def findings() -> Iterator[Finding]:
    """Look for overdue checks, which say that no sweeper runs, and for flows that cannot go on."""
    with Session(current_engine()) as session:
        yield _swept(session)
        yield _stuck(session)
        yield _unknown(session)


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


def _unknown(session: Session) -> Finding:
    """Find steps to come whose task is not there any more: stored flows outlive the code that started them."""
    to_come = (col(FlowRow.state).in_(LIVE_FLOWS), col(StepRow.kind) == "task", col(StepRow.state).in_(OPEN_STEPS))
    of_open_flows = select(StepRow.task).join(FlowRow, col(FlowRow.id) == col(StepRow.flow_id)).where(*to_come)
    tasks = current_app().tasks
    names = session.exec(of_open_flows.distinct().order_by(col(StepRow.task))).all()
    gone = [name for name in names if not isinstance(tasks.get(name or ""), PlatformTask)]
    if gone:
        of_first = select(StepRow.flow_id).join(FlowRow, col(FlowRow.id) == col(StepRow.flow_id)).where(*to_come)
        example = session.exec(of_first.where(col(StepRow.task) == gone[0]).limit(1)).first()
        shown = ", ".join(map(str, gone[:MOST_SHOWN]))
        fix = f"bring them back, or their steps fail: celery -A tasks flows show {example}"
        return Finding("tasks of flows", "fault", f"{len(gone)} tasks of open flows are unknown: {shown}", fix)
    return Finding("tasks of flows", "ok", "all are known")
