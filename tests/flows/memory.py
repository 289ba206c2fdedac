"""The rows of a flow in memory, for the state machine alone."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import OPEN_STEPS

FLOW = UUID(int=1)


class MemoryRows:
    """See :class:`taskyard.flows.machine.Rows`."""

    def __init__(self, steps: Sequence[StepRow], edges: Sequence[tuple[int, int, str]]) -> None:
        self.rows = {step.seq: step for step in steps}
        self.links = list(edges)
        guards = sum(step.role != "step" for step in steps)
        self.flow = FlowRow(id=FLOW, name="memory", steps=len(steps), guards=guards, open_steps=len(steps) - guards)
        self.released: list[StepRow] = []

    def step(self, seq: int) -> StepRow:
        """Return the step at this place."""
        return self.rows[seq]

    def children(self, seq: int) -> Sequence[tuple[StepRow, str]]:
        """Return the steps that wait for this one."""
        return [(self.rows[child], policy) for parent, child, policy in self.links if parent == seq]

    def blocked_members(self, group: StepRow, count: int) -> Sequence[StepRow]:
        """Return the next blocked members of a group."""
        first = group.next_member or 0
        members = [step for step in self._members(group) if step.seq >= first and step.state == "blocked"]
        return members[:count]

    def count_open_members(self, group: StepRow) -> int:
        """Count the members of a group that have not ended."""
        return sum(step.state in OPEN_STEPS for step in self._members(group))

    def guards(self) -> Sequence[StepRow]:
        """Return undo and failure steps in order."""
        return [step for step in self.all_steps() if step.role != "step"]

    def all_steps(self) -> Sequence[StepRow]:
        """Return all steps in order."""
        return [self.rows[seq] for seq in sorted(self.rows)]

    def edges(self) -> Sequence[tuple[int, int, str]]:
        """Return all edges."""
        return self.links

    def cancel_open(self, now: datetime) -> None:
        """Cancel all ordinary steps that did not begin or wait."""
        for step in self.all_steps():
            if step.role == "step" and step.state in {"blocked", "queued", "waiting"}:
                step.state, step.finished_at, step.check_at = "cancelled", now, None

    def cancel_blocked_members(self, group: StepRow, now: datetime) -> int:
        """Cancel a group's members that were not released."""
        blocked = [step for step in self._members(group) if step.state == "blocked"]
        for step in blocked:
            step.state, step.finished_at = "cancelled", now
        return len(blocked)

    def is_any_running(self) -> bool:
        """Whether an ordinary task is being run."""
        return any(step.role == "step" and step.state == "running" for step in self.rows.values())

    def _members(self, group: StepRow) -> list[StepRow]:
        return [step for step in self.all_steps() if step.group_seq == group.seq]
