"""A slow and obvious model of flows: after each event, what every step's state must be is worked out from the start."""

from collections.abc import Callable
from dataclasses import dataclass, field

DONE = "done"
LOST = "lost"
CUT = "cut"  # its worker died when the flow did not want it any more: nobody knows what it did
END_POLICIES = ("ignore", "drop", "continue")


@dataclass
class Spec:
    """A flow: its steps are numbers."""

    count: int
    edges: list[tuple[int, int, str]]
    cleanups: set[int]
    undos: dict[int, int]  # step -> undo step, a number above all steps
    failure: int | None  # the failure step


@dataclass
class Model:
    """What has happened, in order; everything else follows from it."""

    spec: Spec
    ended: dict[int, str] = field(default_factory=dict)  # step -> done, lost or cut, in order of their ends
    started: set[int] = field(default_factory=set)
    is_cancelled: bool = False
    late: set[int] = field(default_factory=set)  # failed when the flow had failed already: nobody ignored it
    undone: dict[int, str] = field(default_factory=dict)  # undo step -> done or lost
    failure: str = ""  # of the failure step: done or lost

    def end(self, step: int, how: str) -> None:
        """An ordinary step ends."""
        if how == LOST and self.has_failed():
            self.late.add(step)
        self.ended[step] = how

    def is_fatal(self, step: int) -> bool:
        """Whether the failure of this step fails the flow."""
        if step in self.spec.cleanups:
            return False
        policies = [policy for parent, _, policy in self.spec.edges if parent == step]
        return not policies or "fail" in policies

    def has_failed(self) -> bool:
        """Whether the flow fails or is cancelled."""
        return self.is_cancelled or any(end == LOST and self.is_fatal(step) for step, end in self.ended.items())

    def is_ready(self, step: int) -> bool:
        """Whether nothing holds the step back any more."""
        parents = [(parent, policy) for parent, child, policy in self.spec.edges if child == step]
        if any(policy == "continue" and self.ended.get(parent) == LOST for parent, policy in parents):
            return True
        return all(parent in self.ended for parent, _ in parents)

    def running(self) -> set[int]:
        """The steps whose handlers run."""
        return self.started - set(self.ended)

    def wanted_undo(self) -> int | None:
        """The undo step that must be next; None: there is none left."""
        order = [step for step, end in self.ended.items() if end in {DONE, CUT} and step in self.spec.undos]
        left = [step for step in order if self.spec.undos[step] not in self.undone]
        return self.spec.undos[left[-1]] if left else None

    def next_guard(self) -> int | None:
        """The undo or failure step that must be queued or running now."""
        if not self.has_failed() or self.running():
            return None
        undo = self.wanted_undo()
        if undo is not None:
            return undo
        return self.spec.failure if self.spec.failure is not None and not self.failure else None

    def flow_state(self) -> str:
        """The state of the flow."""
        if not self.has_failed():
            return "succeeded" if len(self.ended) == self.spec.count else "running"
        if self.running() or self.next_guard() is not None:
            return "compensating"
        if self.is_cancelled:
            return "cancelled"
        return "compensated" if self.undone and all(end == DONE for end in self.undone.values()) else "failed"

    def step_state(self, step: int) -> str:
        """The state of an ordinary step."""
        if step in self.ended:
            if self.ended[step] == LOST:
                return "failed"
            is_undone = self.undone.get(self.spec.undos.get(step, -1)) == DONE
            if self.ended[step] == CUT:
                return "compensated" if is_undone else "cancelled"
            return "compensated" if is_undone else "succeeded"
        if step in self.started:
            return "running"
        if self.has_failed():
            return "cancelled"
        return "queued" if self.is_ready(step) else "blocked"

    def resume(self) -> None:
        """Forget what must run again: what was not done, what was taken back, and what builds on that."""
        again = {step for step in range(self.spec.count) if step not in self.ended}
        again |= {step for step, end in self.ended.items() if end == LOST and self.is_fatal(step)}
        again |= self.late | {step for step, end in self.ended.items() if end == CUT}
        taken_back = {step for step, undo in self.spec.undos.items() if undo in self.undone}
        again |= self._closure(taken_back) | taken_back
        self.ended = {step: end for step, end in self.ended.items() if step not in again}
        self.started -= again
        self.undone, self.failure, self.is_cancelled, self.late = {}, "", False, set()

    def _closure(self, start: set[int]) -> set[int]:
        found: set[int] = set()
        grow: Callable[[set[int]], set[int]] = lambda have: {c for p, c, _ in self.spec.edges if p in have | start}  # noqa: E731
        while not grow(found) <= found:
            found |= grow(found)
        return found
