"""Insert the rows of a planned flow, or of steps that are added to one."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.flows.models import EdgeRow, FlowRow, StepRow
from taskyard.flows.plan import FlowPlan, PlannedStep
from taskyard.flows.rules import machine
from taskyard.flows.storage.rows import Order, SqlRows

FLOWS: Table = FlowRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models


def insert_flow(
    session: Session, plan: FlowPlan, flow_id: UUID, now: datetime, parent: tuple[UUID, int] | None = None
) -> bool:
    """Insert the rows of a flow; False: there is one with this key or id."""
    values = _flow_values(plan, flow_id, now, parent)
    upsert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made: Any = session.execute(upsert(FLOWS).values(values).on_conflict_do_nothing())
    if not made.rowcount:
        return False
    insert_steps(session, plan, flow_id)
    return True


def insert_steps(session: Session, plan: FlowPlan, flow_id: UUID, first: int = 0) -> dict[str, int]:
    """Insert the steps and edges of a plan from this place on; return the place of each step."""
    places = {step.name: seq for seq, step in enumerate(plan.steps, first)}
    waits = Counter(child for _, child, _ in plan.edges)
    sizes = Counter(step.group for step in plan.steps if step.group)
    rows = [_step_values(step, flow_id, places, waits[step.name]) for step in plan.steps]
    for step, row in zip(plan.steps, rows, strict=True):
        if step.kind == "group":  # its members follow it at once
            member = places[step.name] + 1 if sizes[step.name] else None
            row["next_member"], row["options"] = member, {**step.options, "first": member, "members": sizes[step.name]}
    session.execute(insert(StepRow), rows)
    edges = [
        {"flow_id": flow_id, "parent": places[parent], "child": places[child], "if_failed": policy}
        for parent, child, policy in plan.edges
    ]
    if edges:
        session.execute(insert(EdgeRow), edges)
    return places


def release_first(session: Session, flow_id: UUID, now: datetime) -> list[Order]:
    """Release the steps of a new flow that wait for nobody."""
    flow = session.get(FlowRow, flow_id)
    if flow is None:
        raise RuntimeError(f"flow {flow_id} is not there")
    rows = SqlRows(session, flow)  # type: ignore[arg-type]  # SQLModel's session has nothing that is needed here
    ready = select(StepRow).where(
        col(StepRow.flow_id) == flow_id,
        col(StepRow.waits_for) == 0,
        col(StepRow.role) == "step",
        col(StepRow.group_seq).is_(None),
    )
    for step in session.scalars(ready.order_by(col(StepRow.seq))).all():
        machine.release(rows, step, now)
    session.flush()
    return rows.orders()


def _step_values(step: PlannedStep, flow_id: UUID, places: dict[str, int], waits_for: int) -> dict[str, Any]:
    """Return the columns of a step's row."""
    return {
        "flow_id": flow_id,
        "seq": places[step.name],
        "name": step.name,
        "role": step.role,
        "kind": step.kind,
        "task": step.task,
        "payload": step.payload,
        "options": step.options,
        "group_seq": places[step.group] if step.group else None,
        "target_seq": places[step.target] if step.target else None,
        "if_failed": step.if_failed,
        "is_cleanup": step.is_cleanup,
        "deadline_seconds": step.deadline_seconds,
        "waits_for": waits_for,
        "state": "blocked",
        "next_member": None,
    }


def _flow_values(plan: FlowPlan, flow_id: UUID, now: datetime, parent: tuple[UUID, int] | None) -> dict[str, Any]:
    span = plan.deadline_seconds
    guards = sum(step.role != "step" for step in plan.steps)
    return {
        "id": flow_id,
        "name": plan.name,
        "key": plan.key,
        "state": "running",
        "steps": len(plan.steps),
        "open_steps": len(plan.steps) - guards,
        "guards": guards,
        "deadline_seconds": span,
        "check_at": None if span is None else now + timedelta(seconds=span),
        "parent_id": parent and parent[0],
        "parent_seq": parent and parent[1],
        "created_at": now,
        "started_at": now,
    }
