"""A flow and the model of it, told the same: random graphs, outcomes, kills, repeats, cancels and resumes."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from taskyard.flows.models import StepRow
from taskyard.flows.plan import FlowPlan
from taskyard.flows.rules import machine, repair
from taskyard.flows.rules.outcomes import Outcome, apply_outcome
from taskyard.flows.states import POLICIES
from taskyard.flows.step_ref import StepRef
from tests.flows.memory import FLOW, MemoryRows
from tests.flows.model import CUT, DONE, LOST, Model, Spec

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 7


@st.composite
def specs(draw: Any) -> Spec:
    """Flows of a few steps."""
    count = draw(st.integers(1, MOST_STEPS))
    pairs = [(parent, child) for child in range(count) for parent in range(child)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=10)) if pairs else []
    edges = [(parent, child, draw(st.sampled_from((*POLICIES, "fail")))) for parent, child in chosen]
    cleanups = {step for step in range(count) if draw(st.integers(0, 5)) == 0}
    with_undo = [step for step in range(count) if draw(st.booleans())]
    undos = {step: count + place for place, step in enumerate(with_undo)}
    failure = count + len(undos) if draw(st.booleans()) else None
    return Spec(count, edges, cleanups, undos, failure)


class Pair:
    """The machine and the model, told the same."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.model, self.now = spec, Model(spec), START
        steps = [
            StepRow(flow_id=FLOW, seq=seq, name=str(seq), is_cleanup=seq in spec.cleanups, waits_for=0)
            for seq in range(spec.count)
        ]
        for _, child, _ in spec.edges:
            steps[child].waits_for += 1
        steps += [
            StepRow(flow_id=FLOW, seq=undo, name=str(undo), role="undo", target_seq=step)
            for step, undo in spec.undos.items()
        ]
        if spec.failure is not None:
            steps.append(StepRow(flow_id=FLOW, seq=spec.failure, name="failure", role="failure"))
        self.rows = MemoryRows(steps, spec.edges)
        for step in steps:
            if step.role == "step" and not step.waits_for:
                machine.release(self.rows, step, self.now)

    def runnable(self) -> list[int]:
        """Steps that a message may start."""
        rows = self.rows
        is_running = rows.flow.state == "running"
        return [step.seq for step in rows.all_steps() if step.state == "queued" and (is_running or step.role != "step")]

    def running(self) -> list[int]:
        """Steps whose handlers run."""
        return [step.seq for step in self.rows.all_steps() if step.state == "running"]

    def start(self, seq: int) -> None:
        """A worker begins a step."""
        self.rows.step(seq).state = "running"
        if seq < self.spec.count:
            self.model.started.add(seq)

    def finish(self, seq: int, end: str) -> None:
        """A worker records the end of a step."""
        self._apply(seq, "succeeded" if end == DONE else "failed")
        if seq < self.spec.count:
            self.model.end(seq, end)
        elif seq == self.spec.failure:
            self.model.failure = end
        else:
            self.model.undone[seq] = end

    def repeat(self, seq: int) -> None:
        """Another worker, or a message of long ago, says something about a step that has ended."""
        step = self.rows.step(seq)
        if step.state in {"succeeded", "compensated"}:
            for kind in ("succeeded", "failed", "retrying"):
                self._apply(seq, kind)
        self._apply(seq, "succeeded", generation=step.generation - 1)

    def kill(self, seq: int) -> None:
        """A worker dies; the message of its step comes back, and the step is run again if its flow still wants it."""
        step = self.rows.step(seq)
        if step.role == "step" and self.rows.flow.state != "running":
            machine.give_up(self.rows, step, machine.INTERRUPTED, self._tick())
            self.model.end(seq, CUT)

    def cancel(self) -> None:
        """An operator cancels."""
        if self.rows.flow.state == "running":
            self.model.is_cancelled = True
        machine.end(self.rows, "cancelled", "no need", self._tick())

    def resume(self) -> None:
        """An operator resumes."""
        if self.rows.flow.state in repair.RESUMABLE:
            repair.resume(self.rows, self._tick())
            self.model.resume()

    def choices(self) -> list[tuple[Any, ...]]:
        """What may happen next: a method and its arguments."""
        steps = {step.seq: step.state for step in self.rows.all_steps()}
        running = [seq for seq, state in steps.items() if state == "running"]
        found: list[tuple[Any, ...]] = [(self.start, seq) for seq in self.runnable()]
        found += [(self.finish, seq, end) for seq in running for end in (DONE, DONE, LOST)]
        found += [(self.kill, seq) for seq in running]
        found += [(self.repeat, seq) for seq in range(self.spec.count) if steps[seq] == "succeeded"]
        return [*found, (self.cancel,), (self.resume,)]

    def check(self) -> None:
        """Both must say the same."""
        rows = self.rows
        expected = {seq: self.model.step_state(seq) for seq in range(self.spec.count)}
        assert {seq: rows.step(seq).state for seq in expected} == expected
        assert rows.flow.state == self.model.flow_state()
        busy = [step.seq for step in rows.guards() if step.state in {"queued", "running"}]
        wanted = self.model.next_guard()
        assert busy == ([] if wanted is None else [wanted])

    def _apply(self, seq: int, kind: Any, generation: int | None = None) -> None:
        step = self.rows.step(seq)
        ref = StepRef(FLOW, seq, step.generation if generation is None else generation)
        apply_outcome(self.rows, Outcome(ref, kind, error="boom"), self._tick(), _never)

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def _never(_step: StepRow, _plan: FlowPlan, _now: datetime) -> None:
    raise AssertionError("nothing was added")
