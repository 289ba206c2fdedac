"""The state machine against a slow obvious model: random graphs, random outcomes, repeats, cancels and resumes."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from taskyard.flows.models import StepRow
from taskyard.flows.plan import FlowPlan
from taskyard.flows.rules import machine, repair
from taskyard.flows.rules.outcomes import Outcome, apply_outcome
from taskyard.flows.states import POLICIES
from taskyard.flows.step_ref import StepRef
from tests.flows.memory import FLOW, MemoryRows
from tests.flows.model import DONE, LOST, Model, Spec

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 7
MOST_EVENTS = 60


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
        is_running = self.rows.flow.state == "running"
        steps = [step for step in self.rows.all_steps() if step.state == "queued"]
        return [step.seq for step in steps if is_running or step.role != "step"]

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

    def check(self) -> None:
        """Both must say the same."""
        expected = {seq: self.model.step_state(seq) for seq in range(self.spec.count)}
        assert {seq: self.rows.step(seq).state for seq in expected} == expected
        assert self.rows.flow.state == self.model.flow_state()
        busy = [step.seq for step in self.rows.guards() if step.state in {"queued", "running"}]
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


@settings(max_examples=400, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(specs(), st.data())
def test_the_machine_does_what_the_model_says(spec: Spec, data: st.DataObject) -> None:
    pair = Pair(spec)
    pair.check()
    for _ in range(MOST_EVENTS):
        choices: list[tuple[Any, ...]] = [(pair.start, seq) for seq in pair.runnable()]
        choices += [(pair.finish, seq, end) for seq in pair.running() for end in (DONE, DONE, LOST)]
        choices += [(pair.repeat, seq) for seq in range(spec.count) if pair.rows.step(seq).state == "succeeded"]
        choices += [(pair.cancel,), (pair.resume,)]
        act, *arguments = data.draw(st.sampled_from(choices))
        act(*arguments)
        pair.check()


@settings(max_examples=200, deadline=None)
@given(specs(), st.data())
def test_every_flow_ends_whatever_its_steps_do(spec: Spec, data: st.DataObject) -> None:
    pair = Pair(spec)
    while pair.rows.flow.state in {"running", "compensating"}:
        for seq in pair.runnable():
            if pair.rows.step(seq).state == "queued":
                pair.start(seq)
        running = pair.running()
        assert running, "a flow that has not ended has something to do"
        pair.finish(data.draw(st.sampled_from(running)), data.draw(st.sampled_from((DONE, DONE, LOST))))
    pair.check()
