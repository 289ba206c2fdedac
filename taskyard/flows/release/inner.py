"""Flows inside flows: started by a step that waits for their end, cancelled with it."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from sqlmodel import Session

from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.flows.models import FlowRow
from taskyard.flows.plan import FlowPlan
from taskyard.flows.rules import machine
from taskyard.flows.storage.inserting import insert_flow, release_first
from taskyard.flows.storage.rows import Order, SqlRows
from taskyard.flows.storage.store import FlowStore


def inner_flow_id(flow_id: UUID, seq: int, generation: int) -> UUID:
    """Return the id of the flow that this release of a step starts: however often it is started, it is one."""
    return uuid5(flow_id, f"flow:{seq}:{generation}")


def start_or_cancel_inner(order: Order) -> list[Order]:
    """Do what a step with an inner flow was released, or cancelled, for; return what follows. Runs twice safely."""
    inner = inner_flow_id(order.flow_id, order.seq, order.generation)
    if order.state == "waiting":
        return _start(order, inner)
    return cancel_inner(inner) if order.state == "cancelled" else []


def cancel_inner(inner: UUID) -> list[Order]:
    """Cancel an inner flow whose outer one has ended, if it still runs; return what follows."""

    def act(rows: SqlRows, now: datetime, _session: Session) -> None:
        machine.end(rows, "cancelled", "the flow that waits for it has ended", now)

    try:
        return FlowStore(open_session).change(inner, act)
    except LookupError:  # it was never started
        return []


def tell_outer(inner: FlowRow) -> list[Order]:
    """
    Let the step that waits for this flow end as it has, and return what follows. Runs twice safely.

    Then the flow is not looked at again.
    """
    if inner.parent_id is None or inner.parent_seq is None:
        return []
    seq, state, reason, inner_id = inner.parent_seq, inner.state, inner.reason, inner.id

    def act(rows: SqlRows, now: datetime, session: Session) -> None:
        step = rows.step(seq)
        if step.state == "waiting" and inner_flow_id(step.flow_id, seq, step.generation) == inner_id:
            if state == "succeeded":
                machine.succeed(rows, step, {"flow_id": str(inner_id)}, now)
            else:
                machine.fail(rows, step, f"flow {inner_id} {state}: {reason}", now)
        told: Any = session.get(FlowRow, inner_id)
        if told is not None and machine.is_over(told):
            told.check_at = None

    try:
        return FlowStore(open_session).change(inner.parent_id, act)
    except LookupError:
        return []


def tell_outer_of(inner: UUID) -> list[Order]:
    """As :func:`tell_outer`, by the id of a flow that has ended."""
    with open_session() as session:
        found = session.get(FlowRow, inner)
    return [] if found is None else tell_outer(found)


def _start(order: Order, inner: UUID) -> list[Order]:
    now = utc_now()
    with open_session() as session, session.begin():
        plan = FlowPlan.model_validate(order.payload)
        plan.key = None  # the outer flow's step is what makes it one
        is_new = insert_flow(session, plan, inner, now, parent=(order.flow_id, order.seq))
        return release_first(session, inner, now) if is_new else []
