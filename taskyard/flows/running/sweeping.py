"""The sweeper: what is due and has no live task is sent again, and what is too late fails."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.release.handover import hand_over
from taskyard.flows.release.inner import cancel_inner, start_or_cancel_inner, tell_outer
from taskyard.flows.rules import machine
from taskyard.flows.states import ENDED_FLOWS, RUNNABLE
from taskyard.flows.storage.rows import Order, SqlRows
from taskyard.flows.storage.store import FlowStore
from taskyard.history.models import Run

BATCH = 500  # steps, or flows, of one round
MOST_ROUNDS = 100
AGAIN = timedelta(seconds=30)  # a step whose message lives is looked at again after this


@dataclass(slots=True)
class FlowsSwept:
    """What was done."""

    sent_again: int = 0
    too_late: int = 0  # steps and flows that passed their deadline
    withdrawn: int = 0  # steps whose run was cancelled by an operator
    inner: int = 0  # inner flows that were started, ended or cancelled


class Sweeper:
    """Looks at what is due; several at once are harmless."""

    def __init__(self, open_session: Callable[[], Session], held: Callable[[Collection[str]], Collection[str]]) -> None:
        """`held` returns those of some runs whose message the broker has."""
        self._open, self._held = open_session, held
        self._store = FlowStore(open_session)

    def sweep(self) -> FlowsSwept:
        """
        Do what is due.

        Raises:
            redis.RedisError: The broker does not answer; deadlines were looked at before.
        """
        swept = FlowsSwept()
        for flow in self._due_flows():
            self._do_flow(flow, swept)
        for inner in self._orphans():
            hand_over(cancel_inner(inner.id))
            swept.inner += 1
        for _ in range(MOST_ROUNDS):
            steps = self._due_steps()
            self._do_steps(steps, swept)
            if len(steps) < BATCH:
                break
        return swept

    def check_deadline(self, flow_id: UUID, seq: int | None) -> timedelta:
        """End a flow, or a step of it, if it is too late; return how long it still has, nothing if it has ended."""
        swept, now = FlowsSwept(), utc_now()
        with self._open() as session:
            flow = session.get(FlowRow, flow_id)
            step = session.get(StepRow, (flow_id, seq)) if seq is not None else None
        if step is not None and step.state in RUNNABLE and step.deadline_at is not None:
            if step.deadline_at > now:
                return step.deadline_at - now
            self._end_late(step, swept)
        elif seq is None and flow is not None and flow.state == "running" and flow.check_at is not None:
            if flow.check_at > now:
                return flow.check_at - now
            self._do_flow(flow, swept)
        return timedelta(0)

    def _due_flows(self) -> list[FlowRow]:
        with self._open() as session:
            query = select(FlowRow).where(col(FlowRow.check_at) <= utc_now()).order_by(col(FlowRow.check_at))
            return list(session.scalars(query.limit(BATCH)))

    def _do_flow(self, flow: FlowRow, swept: FlowsSwept) -> None:
        if flow.state in ENDED_FLOWS:
            hand_over(tell_outer(flow))
            swept.inner += 1
            return

        def act(rows: SqlRows, now: datetime, _session: Session) -> None:
            if rows.flow.check_at is not None and rows.flow.check_at <= now:
                rows.flow.check_at = None
                if rows.flow.state == "running":
                    swept.too_late += 1
                    span = timedelta(seconds=rows.flow.deadline_seconds or 0)
                    machine.end(rows, "failed", f"deadline: not done after {span}", now)

        hand_over(self._store.change(flow.id, act))

    def _orphans(self) -> list[FlowRow]:
        """Inner flows that run although the outer one does not any more."""
        outer = aliased(FlowRow)
        with self._open() as session:
            query = (
                select(FlowRow)
                .join(outer, col(FlowRow.parent_id) == outer.id)
                .where(col(FlowRow.state) == "running", col(outer.state) != "running")
            )
            return list(session.scalars(query.limit(BATCH)))

    def _due_steps(self) -> list[StepRow]:
        with self._open() as session:
            query = select(StepRow).where(col(StepRow.check_at) <= utc_now()).order_by(col(StepRow.check_at))
            return list(session.scalars(query.limit(BATCH)))

    def _do_steps(self, steps: list[StepRow], swept: FlowsSwept) -> None:
        now = utc_now()
        late = [step for step in steps if step.deadline_at is not None and step.deadline_at <= now]
        for step in late:
            self._end_late(step, swept)
        rest = [step for step in steps if step not in late]
        for step in rest:
            if step.kind == "flow":
                hand_over(start_or_cancel_inner(Order.of(step)))
                swept.inner += 1
        tasks = [step for step in rest if step.kind == "task" and step.run_id]
        alive = set(self._held([step.run_id for step in tasks if step.run_id]))
        dead = [step for step in tasks if step.run_id not in alive]
        withdrawn = self._withdrawn(dead)
        for step in dead:
            if step.run_id in withdrawn:
                self._fail(step, "its run was cancelled by an operator", swept)
        self._send_again([step for step in dead if step.run_id not in withdrawn], swept)
        if rest:
            self._look_again(rest)

    def _end_late(self, step: StepRow, swept: FlowsSwept) -> None:
        def act(rows: SqlRows, now: datetime, _session: Session) -> None:
            found = rows.step(step.seq)
            if found.generation == step.generation and found.state in RUNNABLE:
                swept.too_late += 1
                span = timedelta(seconds=found.deadline_seconds or 0)
                machine.fail(rows, found, f"deadline: not done after {span}", now)

        hand_over(self._store.change(step.flow_id, act))

    def _fail(self, step: StepRow, error: str, swept: FlowsSwept) -> None:
        def act(rows: SqlRows, now: datetime, _session: Session) -> None:
            found = rows.step(step.seq)
            if found.generation == step.generation and found.state in RUNNABLE:
                swept.withdrawn += 1
                machine.fail(rows, found, error, now)

        hand_over(self._store.change(step.flow_id, act))

    def _withdrawn(self, steps: list[StepRow]) -> set[str]:
        """Those of their runs that the records call cancelled: sending them again would undo what a person did."""
        if not steps:
            return set()
        with self._open() as session:
            query = select(col(Run.id)).where(
                col(Run.id).in_([step.run_id for step in steps]), col(Run.state) == "cancelled"
            )
            return set(session.scalars(query))

    def _send_again(self, steps: list[StepRow], swept: FlowsSwept) -> None:
        """A step that was being run lost its message: the same release is sent again."""
        orders = [replace(Order.of(step), state="queued") for step in steps]
        hand_over(orders)
        swept.sent_again += len(orders)

    def _look_again(self, steps: list[StepRow]) -> None:
        """
        Put the next look off; a step that somebody changes at this moment has a new one by that.

        Waiting for those rows, with others locked, could be a deadlock with a worker that records several steps.
        """
        again, seen = utc_now() + AGAIN, {(step.flow_id, step.seq): step for step in steps}
        query = select(StepRow).where(tuple_(col(StepRow.flow_id), col(StepRow.seq)).in_(seen))
        with self._open() as session, session.begin():
            for step in session.scalars(query.with_for_update(skip_locked=True)):
                before = seen[step.flow_id, step.seq]
                if (step.generation, step.check_at) == (before.generation, before.check_at):
                    step.check_at = again if step.deadline_at is None else min(again, step.deadline_at)
