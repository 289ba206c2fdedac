"""Steps that a running step adds to its flow: stored with its success, waited for by its children."""

from datetime import datetime

from sqlalchemy import insert, select
from sqlmodel import Session, col

from taskyard.flows.models import EdgeRow, StepRow
from taskyard.flows.plan import FlowDefinitionError, FlowPlan
from taskyard.flows.rules import machine
from taskyard.flows.storage.inserting import insert_steps
from taskyard.flows.storage.rows import SqlRows


def add_to_flow(session: Session, rows: SqlRows, step: StepRow, plan: FlowPlan, now: datetime) -> None:
    """
    Add the steps of a plan after a step that is about to succeed.

    Raises:
        FlowDefinitionError: A name is taken.
    """
    rows.flush()
    names = [each.name for each in plan.steps]
    taken = select(col(StepRow.name)).where(col(StepRow.flow_id) == step.flow_id, col(StepRow.name).in_(names))
    if (name := session.scalar(taken.limit(1))) is not None:
        raise FlowDefinitionError(f"step {step.name!r} adds {name!r}, which the flow has already")
    flow = rows.flow
    places = insert_steps(session, plan, flow.id, flow.steps)
    guards = sum(each.role != "step" for each in plan.steps)
    flow.steps += len(plan.steps)
    flow.open_steps += len(plan.steps) - guards
    flow.guards += guards
    parents = {parent for parent, _, _ in plan.edges}
    children = {child for _, child, _ in plan.edges}
    ordinary = [each for each in plan.steps if each.role == "step" and each.group is None]
    last = [places[each.name] for each in ordinary if each.name not in parents]
    _let_children_wait(session, rows, step, last)
    for each in ordinary:
        if each.name not in children:
            machine.release(rows, rows.step(places[each.name]), now)


def _let_children_wait(session: Session, rows: SqlRows, step: StepRow, last: list[int]) -> None:
    values = []
    for child, policy in rows.children(step.seq):
        child.waits_for += len(last)
        values += [{"flow_id": step.flow_id, "parent": seq, "child": child.seq, "if_failed": policy} for seq in last]
    if values:
        session.execute(insert(EdgeRow), values)
