"""Store a planned flow in one transaction, and hand its first steps over after the commit."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow
from taskyard.flows.plan import FlowDefinitionError, FlowPlan, check_plan
from taskyard.flows.release.handover import hand_over_after_commit
from taskyard.flows.storage.inserting import insert_flow, release_first


@dataclass(frozen=True, slots=True)
class FlowRun:
    """The handle of a stored flow."""

    id: UUID
    is_duplicate: bool = False  # True: there was one with this key; nothing was written


def start_plan(session: Session, plan: FlowPlan) -> FlowRun:
    """
    Store a flow in the caller's transaction; of one key there is one, however many start it at once.

    A flow whose definition has changed since is the same one: it finishes by what was stored.

    Raises:
        FlowDefinitionError: The definition is not sound, or its key is that of a flow with another name.
    """
    check_plan(plan)
    flow_id = uuid4()
    if not insert_flow(session, plan, flow_id, utc_now()):
        existing = session.scalar(select(FlowRow).where(col(FlowRow.key) == plan.key))
        if existing is None:
            raise RuntimeError(f"flow key {plan.key!r} is held by a transaction that is not visible here")
        if existing.name != plan.name:
            raise FlowDefinitionError(
                f"key {plan.key!r} is that of a flow {existing.name!r} ({existing.id}), so no {plan.name!r} is started"
            )
        return FlowRun(existing.id, is_duplicate=True)
    hand_over_after_commit(session, flow_id, release_first(session, flow_id, utc_now()))
    return FlowRun(flow_id)
