"""Insert the rows of a planned flow, or of steps that are added to one."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from taskyard.flows.models import EdgeRow, FlowRow
from taskyard.flows.plan import FlowPlan, PlannedStep
from taskyard.flows.rules import machine
from taskyard.flows.storage.batch_statements import STEPS, insert_rows
from taskyard.flows.storage.rows import Order, SqlRows

FLOWS: Table = FlowRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models
EDGES: Table = EdgeRow.__table__  # type: ignore[attr-defined]  # as above


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
    insert_rows(session, STEPS, rows)
    edges = [
        {"flow_id": flow_id, "parent": places[parent], "child": places[child], "if_failed": policy}
        for parent, child, policy in plan.edges
    ]
    insert_rows(session, EDGES, edges)
    return places


def release_first(session: Session, flow_id: UUID, now: datetime) -> list[Order]:
    """Release the steps of a new flow that wait for nobody."""
    flow = session.get(FlowRow, flow_id)
    if flow is None:
        raise RuntimeError(f"flow {flow_id} is not there")
    rows = SqlRows(session, flow, is_new=True)
    for step in rows.waiting_for_nobody():
        machine.release(rows, step, now)
    rows.flush()
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
        "event": step.options.get("event"),
        "deadline_seconds": step.deadline_seconds,
        "waits_for": waits_for,
        "state": "blocked",
        "next_member": None,
        "generation": 0,
        "attempts": 0,
        "polls": 0,
        "is_counted": False,
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
