"""Store a planned flow in one transaction, and hand its first steps over after the commit."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow
from taskyard.flows.plan import FlowPlan, check_plan
from taskyard.flows.release.handover import hand_over_after_commit
from taskyard.flows.storage.inserting import insert_flow, release_first


@dataclass(frozen=True, slots=True)
class FlowRun:
    """The handle of a stored flow."""

    id: UUID
    is_duplicate: bool = False  # True: there was one with this key; nothing was written


def start_plan(session: Session, plan: FlowPlan) -> FlowRun:
    """Store a flow in the caller's transaction; of one key there is one, however many start it at once."""
    check_plan(plan)
    flow_id = uuid4()
    if not insert_flow(session, plan, flow_id, utc_now()):
        existing = session.scalar(select(col(FlowRow.id)).where(col(FlowRow.key) == plan.key))
        if existing is None:
            raise RuntimeError(f"flow key {plan.key!r} is held by a transaction that is not visible here")
        return FlowRun(existing, is_duplicate=True)
    hand_over_after_commit(session, flow_id, release_first(session, flow_id, utc_now()))
    return FlowRun(flow_id)
