"""The rows of one flow in the database, for the state machine: loaded as they are asked for, written by one flush."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, select, union, update
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.flows.models import EdgeRow, FlowRow, StepRow
from taskyard.flows.states import OPEN_STEPS
from taskyard.flows.storage.batch_statements import CONTENT, PROGRESS, content_of, progress_of, write_steps

STEP = "step"
WHOLE = -1  # instead of the place of a step: the flow as a whole


class NoSuchStepError(LookupError):
    """The flow has no such step."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done after the commit: send a step's task, start or cancel its inner flow, watch a deadline."""

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
    deadline_at: datetime | None = None

    @classmethod
    def of(cls, step: StepRow) -> "Order":
        """Take what is needed from a row."""
        ref = (step.flow_id, step.seq, step.generation)
        work = (step.name, step.task, step.payload)
        return cls(*ref, step.kind, step.state, *work, step.options or {}, step.run_id, step.deadline_at)

    @classmethod
    def of_whole(cls, flow: FlowRow) -> "Order":
        """Watch the deadline of a flow that runs; tell the flow that waits for one that has ended."""
        deadline = flow.check_at if flow.state == "running" else None
        return cls(flow.id, WHOLE, 0, "whole", flow.state, flow.name, None, None, {}, None, deadline)


class SqlRows:
    """
    See :class:`taskyard.flows.rules.machine.Rows`; the caller holds the lock on the flow's row.

    Steps are out of the session: what changed in them is written by :meth:`flush`, all with one statement.
    """

    def __init__(self, session: Session, flow: FlowRow, expected: int = 1, *, is_new: bool = False) -> None:
        """`expected` is how many outcomes will be applied: so many members of a group may be released."""
        self.flow = flow
        self.released: list[StepRow] = []
        self._watched = None if is_new else flow.check_at
        self._session, self._expected = session, expected
        self._steps: dict[int, StepRow] = {}
        self._stored: dict[int, tuple[Any, Any]] = {}  # progress and content, as the database has them
        self._children: dict[int, list[tuple[StepRow, str]]] = {}
        self._ahead: dict[int, deque[StepRow]] = {}  # of a group: its next blocked members

    def orders(self) -> list[Order]:
        """Return what is to be done after the commit for what was released since the last call."""
        found = [Order.of(step) for step in self.released if step.state in {"queued", "waiting", "cancelled"}]
        self.released.clear()
        if self.flow.check_at not in {None, self._watched}:
            found.append(Order.of_whole(self.flow))
            self._watched = self.flow.check_at
        return found

    def flush(self) -> None:
        """Write what changed."""
        progress, content = list[StepRow](), list[StepRow]()
        for seq, step in sorted(self._steps.items()):
            is_moved, is_other = (progress_of(step) != self._stored[seq][0]), (content_of(step) != self._stored[seq][1])
            if is_other:
                content.append(step)
            elif is_moved:
                progress.append(step)
        write_steps(self._session, progress, PROGRESS)
        write_steps(self._session, content, PROGRESS + CONTENT)
        for step in progress + content:
            self._note_stored(step)
        self._session.flush()

    def load(self, seqs: Sequence[int]) -> None:
        """Load and lock many steps, their groups, and the children of those that may have some, with two statements."""
        these = select(StepRow).where(self._ours(), col(StepRow.seq).in_(seqs))
        places = union(*(these.with_only_columns(col(column)) for column in (StepRow.seq, StepRow.group_seq)))
        self._find(col(StepRow.seq).in_(places), is_locked=True)
        found = [self._steps[seq] for seq in sorted(set(seqs) & self._steps.keys())]
        self.load_children([step.seq for step in found if step.group_seq is None])
        for step in found:
            if step.group_seq is not None:
                self._children.setdefault(step.seq, [])  # nobody waits for a member by itself

    def step(self, seq: int) -> StepRow:
        """
        Return the step at this place.

        Raises:
            NoSuchStepError: There is none.
        """
        if seq not in self._steps and not self._find(col(StepRow.seq) == seq):
            raise NoSuchStepError(f"flow {self.flow.id} has no step at place {seq}")
        return self._steps[seq]

    def named(self, name: str) -> StepRow:
        """
        Return the step of this name.

        Raises:
            NoSuchStepError: There is none.
        """
        found = self._find(col(StepRow.name) == name)
        if not found:
            raise NoSuchStepError(f"flow {self.flow.id} has no step called {name!r}")
        return found[0]

    def children(self, seq: int) -> Sequence[tuple[StepRow, str]]:
        """Return the steps that wait for this one, each with what its failure means to them."""
        if seq not in self._children:
            self.load_children([seq])
        return self._children[seq]

    def load_children(self, seqs: Sequence[int]) -> None:
        """Load the children of many steps with one statement."""
        missing = [seq for seq in seqs if seq not in self._children]
        if not missing:
            return
        self._children.update({seq: [] for seq in missing})
        same = and_(col(StepRow.flow_id) == col(EdgeRow.flow_id), col(StepRow.seq) == col(EdgeRow.child))
        query = (
            select(StepRow, EdgeRow.parent, EdgeRow.if_failed)  # type: ignore[call-overload]  # SQLModel's columns
            .join(EdgeRow, same)
            .where(col(EdgeRow.flow_id) == self.flow.id, col(EdgeRow.parent).in_(missing))
            .order_by(col(EdgeRow.child))
        )
        for child, parent, policy in self._execute(query).all():
            self._children[parent].append((self._keep(child), policy))

    def blocked_members(self, group: StepRow, count: int) -> Sequence[StepRow]:
        """Return the next blocked members of a group, from `group.next_member` on."""
        first = group.next_member or 0
        ahead = self._ahead.setdefault(group.seq, deque())
        while ahead and (ahead[0].seq < first or ahead[0].state != "blocked"):
            ahead.popleft()
        if len(ahead) < count:
            self._write_blocked(group)
            after = (col(StepRow.group_seq) == group.seq, col(StepRow.seq) >= first, col(StepRow.state) == "blocked")
            found = self._find(*after, limit=max(count, self._expected))
            ahead = self._ahead[group.seq] = deque(step for step in found if step.state == "blocked")
        return [ahead.popleft() for _ in range(min(count, len(ahead)))]

    def waiting_for_nobody(self) -> Sequence[StepRow]:
        """Return the steps that begin with the flow."""
        no_parents = (col(StepRow.waits_for) == 0, col(StepRow.role) == STEP, col(StepRow.group_seq).is_(None))
        return self._find(*no_parents)

    def count_open_members(self, group: StepRow) -> int:
        """Count the members of a group that have not ended."""
        self.flush()
        return self._count(col(StepRow.group_seq) == group.seq, col(StepRow.state).in_(OPEN_STEPS))

    def guards(self) -> Sequence[StepRow]:
        """Return undo and failure steps in order."""
        return self._find(col(StepRow.role) != STEP) if self.flow.guards else ()

    def all_steps(self) -> Sequence[StepRow]:
        """Return all steps in order."""
        return self._find()

    def edges(self) -> Sequence[tuple[int, int, str]]:
        """Return all edges: parent, child, and what the parent's failure means."""
        query = select(col(EdgeRow.parent), col(EdgeRow.child), col(EdgeRow.if_failed))
        found = self._execute(query.where(col(EdgeRow.flow_id) == self.flow.id))
        return [(parent, child, policy) for parent, child, policy in found]

    def cancel_open(self, now: datetime) -> None:
        """Cancel all ordinary steps that did not begin or wait; inner flows of waiting ones are cancelled, too."""
        self.flush()
        self.released += self._find(col(StepRow.kind) == "flow", col(StepRow.state) == "waiting")
        states = ("blocked", "queued", "waiting")
        which = (col(StepRow.role) == STEP, col(StepRow.state).in_(states))
        self._cancel(now, lambda step: step.role == STEP and step.state in states, *which)

    def cancel_blocked_members(self, group: StepRow, now: datetime) -> int:
        """Cancel a group's members that were not released; return how many."""
        self.flush()
        which = (col(StepRow.group_seq) == group.seq, col(StepRow.state) == "blocked")
        return self._cancel(now, lambda step: step.group_seq == group.seq and step.state == "blocked", *which)

    def is_any_running(self) -> bool:
        """Whether an ordinary task of the flow is being run."""
        self.flush()
        running = (col(StepRow.role) == STEP, col(StepRow.state) == "running")
        return self._execute(select(col(StepRow.seq)).where(self._ours(), *running).limit(1)).first() is not None

    def _cancel(self, now: datetime, is_meant: Callable[[StepRow], bool], *which: Any) -> int:
        ordered = select(col(StepRow.seq)).where(self._ours(), *which).order_by(col(StepRow.seq))
        self._execute(ordered.with_for_update()).all()  # as workers that begin some of them lock them: no deadlock
        values = {"state": "cancelled", "finished_at": now, "check_at": None}
        found: Any = self._execute(update(StepRow).where(self._ours(), *which).values(values))
        for step in filter(is_meant, self._steps.values()):
            step.state, step.finished_at, step.check_at = "cancelled", now, None
            self._note_stored(step)
        return int(found.rowcount)

    def _find(self, *which: Any, limit: int | None = None, is_locked: bool = False) -> list[StepRow]:
        """Return steps in order; those that are known already with the changes that are not written yet."""
        query = select(StepRow).where(self._ours(), *which).order_by(col(StepRow.seq)).limit(limit)
        found = self._execute(query.with_for_update() if is_locked else query).scalars().all()
        return [self._keep(row) for row in found]

    def _keep(self, row: StepRow) -> StepRow:
        known = self._steps.get(row.seq)
        if known is None:
            known = self._steps[row.seq] = row
            self._note_stored(row)
        if row in self._session:
            self._session.expunge(row)
        return known

    def _note_stored(self, step: StepRow) -> None:
        self._stored[step.seq] = (progress_of(step), content_of(step))

    def _write_blocked(self, group: StepRow) -> None:
        """Let the database know which members were blocked again, for it is asked for them."""
        if any(step.group_seq == group.seq and step.state == "blocked" for step in self._changed()):
            self.flush()

    def _changed(self) -> Iterable[StepRow]:
        return (step for seq, step in self._steps.items() if progress_of(step) != self._stored[seq][0])

    def _execute(self, statement: Any) -> Any:
        with self._session.no_autoflush:
            return self._session.execute(statement, execution_options={"synchronize_session": False})

    def _count(self, *which: Any) -> int:
        return int(self._execute(select(func.count()).select_from(StepRow).where(self._ours(), *which)).scalar_one())

    def _ours(self) -> Any:
        return col(StepRow.flow_id) == self.flow.id
