"""Reading flows: lists, one with its steps, and which step a run belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, literal, tuple_
from sqlmodel import Session, col, select

from taskyard.database.columns import UtcDateTime
from taskyard.database.paging import PAGE, Page, read_cursor, read_uuid, write_cursor
from taskyard.flows.models import EdgeRow, FlowRow, StepRow
from taskyard.flows.step_ref import FLOW_HEADER, StepRef


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFilter:
    """Which flows are wanted; None: any."""

    name: str | None = None
    state: str | None = None
    key: str | None = None
    since: datetime | None = None  # created at or after this time
    until: datetime | None = None


def list_flows(session: Session, wanted: FlowFilter, *, limit: int = PAGE, after: str | None = None) -> Page[FlowRow]:
    """
    Return a page of flows, the newest first.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    created, key = col(FlowRow.created_at), col(FlowRow.id)
    equal = ((FlowRow.name, wanted.name), (FlowRow.state, wanted.state), (FlowRow.key, wanted.key))
    conditions = [col(column) == value for column, value in equal if value is not None]
    if wanted.since is not None:
        conditions.append(created >= wanted.since)
    if wanted.until is not None:
        conditions.append(created < wanted.until)
    query = select(FlowRow).where(*conditions).order_by(created.desc(), key.desc()).limit(limit + 1)
    if after is not None:
        moment, last = read_cursor(after)
        query = query.where(tuple_(created, key) < tuple_(literal(moment, UtcDateTime()), literal(read_uuid(last))))
    rows = session.exec(query).all()
    more, rows = len(rows) > limit, rows[:limit]
    return Page(rows, write_cursor(rows[-1].created_at, str(rows[-1].id)) if more else None)


def find_flow(session: Session, flow_id: UUID) -> FlowRow | None:
    """Return the flow of this id; None: unknown."""
    return session.get(FlowRow, flow_id)


def steps_of(session: Session, flow_id: UUID, *, members: int = PAGE) -> Sequence[StepRow]:
    """Return the steps of a flow in order; of each group its first members, and those that failed."""
    in_short = func.row_number().over(partition_by=col(StepRow.group_seq), order_by=col(StepRow.seq)).label("place")
    ranked = select(col(StepRow.seq), in_short).where(
        col(StepRow.flow_id) == flow_id, col(StepRow.group_seq).is_not(None)
    )
    first = ranked.subquery()
    shown = select(first.c.seq).where(first.c.place <= members)
    query = select(StepRow).where(
        col(StepRow.flow_id) == flow_id,
        col(StepRow.group_seq).is_(None) | col(StepRow.seq).in_(shown) | (col(StepRow.state) == "failed"),
    )
    return session.exec(query.order_by(col(StepRow.seq))).all()


def member_counts(session: Session, flow_id: UUID) -> dict[int, dict[str, int]]:
    """Return how many members of each group are in which state."""
    query = (
        select(StepRow.group_seq, StepRow.state, func.count())
        .where(col(StepRow.flow_id) == flow_id, col(StepRow.group_seq).is_not(None))
        .group_by(col(StepRow.group_seq), col(StepRow.state))
    )
    counts: dict[int, dict[str, int]] = {}
    for group, state, count in session.exec(query):
        if group is not None:
            counts.setdefault(group, {})[state] = count
    return counts


def edges_of(session: Session, flow_id: UUID) -> Sequence[EdgeRow]:
    """Return the dependencies of a flow."""
    query = select(EdgeRow).where(col(EdgeRow.flow_id) == flow_id)
    return session.exec(query.order_by(col(EdgeRow.child), col(EdgeRow.parent))).all()


def flow_of_run(session: Session, run_id: str, root_id: str | None) -> dict[str, str]:
    """Return the flow that a run belongs to, and its step if it is the run of one; empty: it is of no flow."""
    step = session.exec(select(StepRow).where(StepRow.run_id == run_id)).first()
    if step is not None:
        return {"flow": str(step.flow_id), "step": step.name}
    try:
        flow = session.get(FlowRow, UUID(root_id or ""))
    except ValueError:
        return {}
    if flow is None:
        return {}
    name = _step_of_earlier_run(session, flow.id, run_id)
    return {"flow": str(flow.id)} | ({"step": name} if name else {})


def steps_of_headers(session: Session, many: Sequence[Mapping[str, Any] | None]) -> list[dict[str, str | None]]:
    """Return the flow and step that messages with these headers belong to; both None: to none that is known."""
    refs = [StepRef.read((headers or {}).get(FLOW_HEADER)) for headers in many]
    places = {(ref.flow_id, ref.seq) for ref in refs if ref is not None}
    names: dict[tuple[UUID, int], str] = {}
    if places:
        query = select(StepRow.flow_id, StepRow.seq, StepRow.name)
        rows = session.exec(query.where(tuple_(col(StepRow.flow_id), col(StepRow.seq)).in_(places)))
        names = {(flow_id, seq): name for flow_id, seq, name in rows}
    found = [(ref, names.get((ref.flow_id, ref.seq)) if ref else None) for ref in refs]
    return [{"flow": str(ref.flow_id) if ref and name else None, "step": name} for ref, name in found]


def _step_of_earlier_run(session: Session, flow_id: UUID, run_id: str) -> str | None:
    """The name of the step that had this run before it ran again."""
    query = select(StepRow.seq, StepRow.generation, StepRow.name)
    again = session.exec(query.where(StepRow.flow_id == flow_id, StepRow.generation > 1))
    runs = ((StepRef(flow_id, seq, number), name) for seq, newest, name in again for number in range(1, newest))
    return next((name for ref, name in runs if ref.run_id() == run_id), None)
