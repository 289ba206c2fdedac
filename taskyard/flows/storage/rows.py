"""The rows of one flow in the database, for the state machine: loaded as they are asked for, written by one flush."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, select, update
from sqlmodel import Session, col

from taskyard.flows.models import EdgeRow, FlowRow, StepRow
from taskyard.flows.states import OPEN_STEPS

STEP = "step"


class NoSuchStepError(LookupError):
    """The flow has no such step."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done for a step after the commit: send its task, or start or cancel its inner flow."""

    flow_id: UUID
    seq: int
    generation: int
    kind: str  # of the step
    state: str
    name: str
    task: str | None
    payload: Any
    options: dict[str, Any]
    run_id: str | None

    @classmethod
    def of(cls, step: StepRow) -> "Order":
        """Take what is needed from a row."""
        place = (step.flow_id, step.seq, step.generation)
        return cls(*place, step.kind, step.state, step.name, step.task, step.payload, step.options or {}, step.run_id)


class SqlRows:
    """See :class:`taskyard.flows.machine.Rows`; the caller holds the lock on the flow's row."""

    def __init__(self, session: Session, flow: FlowRow) -> None:
        self.flow = flow
        self.released: list[StepRow] = []
        self._session = session
        self._children: dict[int, list[tuple[StepRow, str]]] = {}

    def orders(self) -> list[Order]:
        """Return what is to be done after the commit for what was released since the last call."""
        found = [Order.of(step) for step in self.released if step.state in {"queued", "waiting", "cancelled"}]
        self.released.clear()
        return found

    def step(self, seq: int) -> StepRow:
        """Return the step at this place."""
        found = self._session.get(StepRow, (self.flow.id, seq))
        if found is None:
            raise NoSuchStepError(f"flow {self.flow.id} has no step at place {seq}")
        return found

    def named(self, name: str) -> StepRow:
        """
        Return the step of this name.

        Raises:
            NoSuchStepError: There is none.
        """
        query = select(StepRow).where(self._ours(), col(StepRow.name) == name)
        found = self._session.scalars(query).one_or_none()
        if found is None:
            raise NoSuchStepError(f"flow {self.flow.id} has no step called {name!r}")
        return found

    def children(self, seq: int) -> Sequence[tuple[StepRow, str]]:
        """Return the steps that wait for this one, each with what its failure means to them."""
        if seq not in self._children:
            self.load_children([seq])
        return self._children[seq]

    def load_children(self, seqs: Sequence[int]) -> None:
        """Load the children of many steps with one statement."""
        missing = [seq for seq in seqs if seq not in self._children]
        self._children.update({seq: [] for seq in missing})
        same = and_(col(StepRow.flow_id) == col(EdgeRow.flow_id), col(StepRow.seq) == col(EdgeRow.child))
        query = (
            select(StepRow, EdgeRow.parent, EdgeRow.if_failed)  # type: ignore[call-overload]  # SQLModel's columns
            .join(EdgeRow, same)
            .where(col(EdgeRow.flow_id) == self.flow.id, col(EdgeRow.parent).in_(missing))
            .order_by(col(EdgeRow.child))
        )
        for child, parent, policy in self._session.execute(query):
            self._children[parent].append((child, policy))

    def know_childless(self, seq: int) -> None:
        """Note that nobody waits for this step by itself: it is a member of a group."""
        self._children.setdefault(seq, [])

    def blocked_members(self, group: StepRow, count: int) -> Sequence[StepRow]:
        """Return the next blocked members of a group, from `group.next_member` on."""
        self._session.flush()
        query = select(StepRow).where(
            self._ours(),
            col(StepRow.group_seq) == group.seq,
            col(StepRow.seq) >= group.next_member,
            col(StepRow.state) == "blocked",
        )
        return self._session.scalars(query.order_by(col(StepRow.seq)).limit(count)).all()

    def count_open_members(self, group: StepRow) -> int:
        """Count the members of a group that have not ended."""
        self._session.flush()
        return self._count(col(StepRow.group_seq) == group.seq, col(StepRow.state).in_(OPEN_STEPS))

    def guards(self) -> Sequence[StepRow]:
        """Return undo and failure steps in order."""
        if not self.flow.guards:
            return ()
        query = select(StepRow).where(self._ours(), col(StepRow.role) != STEP).order_by(col(StepRow.seq))
        return self._session.scalars(query).all()

    def all_steps(self) -> Sequence[StepRow]:
        """Return all steps in order."""
        return self._session.scalars(select(StepRow).where(self._ours()).order_by(col(StepRow.seq))).all()

    def edges(self) -> Sequence[tuple[int, int, str]]:
        """Return all edges: parent, child, and what the parent's failure means."""
        query = select(col(EdgeRow.parent), col(EdgeRow.child), col(EdgeRow.if_failed))
        found = self._session.execute(query.where(col(EdgeRow.flow_id) == self.flow.id))
        return [(parent, child, policy) for parent, child, policy in found]

    def cancel_open(self, now: datetime) -> None:
        """Cancel all ordinary steps that did not begin or wait; inner flows of waiting ones are cancelled, too."""
        self._session.flush()
        inner = select(StepRow).where(self._ours(), col(StepRow.kind) == "flow", col(StepRow.state) == "waiting")
        self.released += self._session.scalars(inner).all()
        which = col(StepRow.state).in_(("blocked", "queued", "waiting"))
        self._cancel(now, col(StepRow.role) == STEP, which)

    def cancel_blocked_members(self, group: StepRow, now: datetime) -> int:
        """Cancel a group's members that were not released; return how many."""
        self._session.flush()
        return self._cancel(now, col(StepRow.group_seq) == group.seq, col(StepRow.state) == "blocked")

    def is_any_running(self) -> bool:
        """Whether an ordinary task of the flow is being run."""
        self._session.flush()
        running = (col(StepRow.role) == STEP, col(StepRow.state) == "running")
        return self._session.scalar(select(col(StepRow.seq)).where(self._ours(), *running).limit(1)) is not None

    def _cancel(self, now: datetime, *which: Any) -> int:
        values = {"state": "cancelled", "finished_at": now, "check_at": None}
        statement = update(StepRow).where(self._ours(), *which).values(values)
        found: Any = self._session.execute(statement, execution_options={"synchronize_session": False})
        for row in list(self._session.identity_map.values()):
            if isinstance(row, StepRow):
                self._session.expire(row)
        return int(found.rowcount)

    def _count(self, *which: Any) -> int:
        query = select(func.count()).select_from(StepRow).where(self._ours(), *which)
        return self._session.scalar(query) or 0

    def _ours(self) -> Any:
        return col(StepRow.flow_id) == self.flow.id
