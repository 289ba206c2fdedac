"""The state of flows in numbers, for metrics."""

from collections.abc import Iterator

from sqlalchemy import func
from sqlmodel import Session, col, select

from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import LIVE_FLOWS
from taskyard.gauges import GaugeSample, age_seconds, gauges_by_label

COUNTED = (*LIVE_FLOWS, "failed", "compensated")  # those that somebody may have to look at
STEPS = ("queued", "running", "waiting")


def figures(session: Session) -> Iterator[GaugeSample]:
    """Give flows and steps by state, and the oldest open flow."""
    query = select(FlowRow.state, func.count()).where(col(FlowRow.state).in_(COUNTED)).group_by(FlowRow.state)
    counts = {**dict.fromkeys(COUNTED, 0), **dict(session.exec(query).all())}
    yield from gauges_by_label("taskyard_flows", "Flows that run or did not succeed", "state", counts.items())
    oldest = select(func.min(FlowRow.started_at)).where(col(FlowRow.state).in_(LIVE_FLOWS))
    age = age_seconds(session.exec(oldest).one())
    yield GaugeSample("taskyard_flow_oldest_seconds", "Age of the open flow that was started first", age)
    open_flows = select(FlowRow.id).where(col(FlowRow.state).in_(LIVE_FLOWS))
    steps = (
        select(StepRow.state, func.count())
        .where(col(StepRow.flow_id).in_(open_flows), col(StepRow.state).in_(STEPS))
        .group_by(StepRow.state)
    )
    found = {**dict.fromkeys(STEPS, 0), **dict(session.exec(steps).all())}
    yield from gauges_by_label("taskyard_flow_steps", "Steps of open flows", "state", found.items())
