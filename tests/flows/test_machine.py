"""The state machine, alone and on databases, against a slow obvious model."""

from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from taskyard.flows import steering
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.plan import FlowPlan, PlannedStep
from taskyard.flows.release.handover import hand_over
from taskyard.flows.release.starting import start_plan
from taskyard.flows.rules import repair
from taskyard.flows.rules.outcomes import Outcome
from taskyard.flows.step_ref import StepRef
from tests.flows.flow_stage import FlowStage
from tests.flows.memory import MemoryRows
from tests.flows.model import CUT, DONE, LOST, Model, Spec
from tests.flows.pair import Pair, specs

MOST_EVENTS = 60
ON_DATABASES = 30  # events


class StoredPair(Pair):
    """A flow on a database, changed as workers and operators do, and the model."""

    def __init__(self, spec: Spec, stage: FlowStage) -> None:
        self.spec, self.model, self.stage = spec, Model(spec), stage
        task: dict[str, Any] = {"task": "flowtest.act", "payload": {"name": "one"}}
        steps = [PlannedStep(name=str(seq), is_cleanup=seq in spec.cleanups, **task) for seq in range(spec.count)]
        steps += [
            PlannedStep(name=str(undo), role="undo", target=str(step), **task) for step, undo in spec.undos.items()
        ]
        if spec.failure is not None:
            steps.append(PlannedStep(name=str(spec.failure), role="failure", **task))
        edges: list[Any] = [(str(parent), str(child), policy) for parent, child, policy in spec.edges]
        with stage.session() as session, session.begin():
            self.flow_id: UUID = start_plan(session, FlowPlan(name="random", steps=steps, edges=edges)).id

    @property
    def rows(self) -> MemoryRows:  # type: ignore[override]  # what the database says now
        """The rows as they are stored."""
        with self.stage.session() as session:
            steps = session.exec(select(StepRow).where(StepRow.flow_id == self.flow_id)).all()
            found = MemoryRows(steps, [])
            found.flow = session.exec(select(FlowRow).where(FlowRow.id == self.flow_id)).one()
        return found

    def start(self, seq: int) -> None:
        """A worker begins a step."""
        assert self._begin(seq) == "run"
        if seq < self.spec.count:
            self.model.started.add(seq)

    def kill(self, seq: int) -> None:
        """A worker dies, and the message of its step comes to another one."""
        is_wanted = seq >= self.spec.count or self.model.flow_state() == "running"
        assert self._begin(seq) == ("run" if is_wanted else "over")
        if not is_wanted:
            hand_over(self.stage.store.interrupted(self.stage.ref(self.flow_id, str(seq))))
            self.model.end(seq, CUT)

    def cancel(self) -> None:
        """An operator cancels."""
        if self.rows.flow.state == "running":
            steering.cancel_flow(self.flow_id, "no need")
            self.model.is_cancelled = True

    def resume(self) -> None:
        """An operator resumes."""
        if self.rows.flow.state in repair.RESUMABLE:
            steering.resume_flow(self.flow_id, "mended")
            self.model.resume()

    def _begin(self, seq: int) -> str:
        return self.stage.begin(self.flow_id, str(seq)).verdict

    def _apply(self, seq: int, kind: Any, generation: int | None = None) -> None:
        ref = self.stage.ref(self.flow_id, str(seq))
        ref = StepRef(ref.flow_id, seq, ref.generation if generation is None else generation)
        hand_over(self.stage.store.record(Outcome(ref, kind, error="boom")).orders)


@settings(max_examples=400, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(specs(), st.data())
def test_the_machine_does_what_the_model_says(spec: Spec, data: st.DataObject) -> None:
    pair = Pair(spec)
    pair.check()
    for _ in range(MOST_EVENTS):
        act, *arguments = data.draw(st.sampled_from(pair.choices()))
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


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has a flow of its own on the stage
)
@given(spec=specs(), data=st.data())
def test_a_stored_flow_does_what_the_model_says(stage: FlowStage, spec: Spec, data: st.DataObject) -> None:
    pair = StoredPair(spec, stage)
    for _ in range(ON_DATABASES):
        act, *arguments = data.draw(st.sampled_from(pair.choices()))
        act(*arguments)
        pair.check()
