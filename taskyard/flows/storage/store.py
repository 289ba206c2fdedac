"""The transactions of flows: begin a step, record how it ended, and let the flow go on, all exactly once."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.database.group_commit import GroupCommitter
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.rules import machine
from taskyard.flows.rules.outcomes import Outcome, apply_outcome
from taskyard.flows.step_ref import StepRef
from taskyard.flows.storage.batch_statements import Begin, begin_steps
from taskyard.flows.storage.growing import add_to_flow
from taskyard.flows.storage.rows import Order, SqlRows

type Verdict = Literal["run", "over", "redriven"]


@dataclass(frozen=True, slots=True)
class Start:
    """Whether a message may run its step."""

    verdict: Verdict
    name: str = ""
    started_at: datetime | None = None  # of this release
    polls: int = 0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlowAdvance:
    """What follows from an outcome."""

    goes_on: bool  # False for an attempt to come that its flow does not want any more
    orders: Sequence[Order] = ()


class FlowStore:
    """Every method is one transaction; those of many threads at the same moment share one."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        self._begins = GroupCommitter(self._begin_all)
        self._outcomes = GroupCommitter(self._record_all)

    def begin(self, ref: StepRef, run_id: str, attempt: int) -> Start:
        """Mark a step as running, if this message may run it."""
        return self._begins.call(Begin(ref, run_id, attempt))

    def record(self, outcome: Outcome) -> FlowAdvance:
        """Record how an execution ended; of several for one release, the first final one counts."""
        return self._outcomes.call(outcome)

    def unsent(self, ref: StepRef) -> list[Order]:
        """Return what the end of this step released and nobody runs yet: whoever recorded it may have died since."""
        with self._open_session() as session:
            query = select(StepRow).where(
                col(StepRow.flow_id) == ref.flow_id, col(StepRow.kind) == "task", col(StepRow.state) == "queued"
            )
            rows = session.scalars(query.order_by(col(StepRow.seq)).limit(100)).all()
            return [Order.of(row) for row in rows]

    def interrupted(self, ref: StepRef) -> list[Order]:
        """Give up a step that was being run when its worker was lost, if its flow ends and so will not run it again."""

        def act(rows: SqlRows, now: datetime, _session: Session) -> None:
            step = rows.step(ref.seq)
            is_ours = step.generation == ref.generation and step.state == "running"
            if is_ours and step.role == "step" and rows.flow.state != "running":
                machine.give_up(rows, step, machine.INTERRUPTED, now)

        try:
            return self.change(ref.flow_id, act)
        except LookupError:
            return []

    def change(self, flow_id: UUID, action: Callable[[SqlRows, datetime, Session], None]) -> list[Order]:
        """
        Do something to a flow under its lock; return what is to be handed over.

        Raises:
            LookupError: There is no such flow.
        """
        with self._open_session() as session, session.begin():
            found = lock_flows(session, [flow_id])
            if not found:
                raise LookupError(f"no flow {flow_id}")
            rows = SqlRows(session, found[0])
            action(rows, utc_now(), session)
            rows.flush()
            return rows.orders()

    def _begin_all(self, asked: Sequence[Begin]) -> list[Start]:
        now = utc_now()
        with self._open_session() as session, session.begin():
            found = begin_steps(session, asked, now)
        rows = [found.get(begin.ref) for begin in asked]
        return [Start("over") if row is None else _start_of(row) for row in rows]

    def _record_all(self, outcomes: Sequence[Outcome]) -> list[FlowAdvance]:
        now = utc_now()
        by_flow = defaultdict[UUID, list[int]](list)
        for place, outcome in enumerate(outcomes):
            by_flow[outcome.ref.flow_id].append(place)
        answers = [FlowAdvance(goes_on=True)] * len(outcomes)
        with self._open_session() as session, session.begin():
            for flow in lock_flows(session, by_flow):
                mine = by_flow[flow.id]
                rows = SqlRows(session, flow, expected=len(mine))
                rows.load([outcomes[place].ref.seq for place in mine])
                for place in mine:
                    goes_on = apply_outcome(rows, outcomes[place], now, partial(add_to_flow, session, rows))
                    answers[place] = FlowAdvance(goes_on, rows.orders())
                rows.flush()
        return answers


def lock_flows(session: Session, flow_ids: Sequence[UUID] | dict[UUID, Any]) -> Sequence[FlowRow]:
    """Lock the rows of flows, always in the same order, so that no two transactions wait for each other."""
    query = select(FlowRow).where(col(FlowRow.id).in_(list(flow_ids))).order_by(col(FlowRow.id)).with_for_update()
    return session.scalars(query).all()


def _start_of(row: Any) -> Start:
    return Start("run", row.name, row.started_at, row.polls, row.options or {})
