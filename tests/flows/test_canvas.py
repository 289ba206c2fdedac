"""Flows of Celery's canvas."""

from typing import Any

import pytest
from celery import chain, chord, group

from taskyard.flows.definition.flow import Flow
from taskyard.flows.plan import FlowDefinitionError
from taskyard.tasks.sending import find_task
from tests.flows import app as tasks_of_tests
from tests.flows.flow_stage import FlowStage

assert tasks_of_tests.act is not None  # its import declares the tasks


def sig(name: str, **fields: Any) -> Any:
    """A signature of the test's task."""
    task: Any = find_task("flowtest.act")
    return task.si(name=name, **fields)


def names_of(flow: Flow) -> list[str]:
    """What the steps of a plan do, with what they wait for."""
    acts = {step.name: (step.payload or {}).get("name", step.kind) for step in flow.plan.steps}
    after = {step.name: sorted(acts[p] for p, c, _ in flow.plan.edges if c == step.name) for step in flow.plan.steps}
    return [f"{acts[name]}<{','.join(after[name])}" for name in acts]


def test_a_nested_canvas_keeps_its_order() -> None:
    canvas = chain(sig("a"), chord([sig("b"), sig("c"), group(sig("d"), sig("e"))], sig("f")), sig("g"))

    names = names_of(Flow.from_canvas("canvas", canvas))

    assert names[0] == "a<"
    assert {"b<a", "c<a"} <= set(names)
    assert names[-2] in {"f<b,c,group", "f<b,c,d,e"}
    assert names[-1] == "g<f"


def test_a_large_header_of_one_task_becomes_a_group() -> None:
    flow = Flow.from_canvas("canvas", chord([sig(f"p{i}") for i in range(1000)], sig("body")))

    assert [step.kind for step in flow.plan.steps if step.group is None] == ["group", "task"]
    assert len(flow.plan.steps) == 1002
    assert len(flow.plan.edges) == 1


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda task: task.s(name="a"), "use .si()"),
        (lambda task: task.si(name="a").set(countdown=5), "has no countdown"),
        (lambda task: task.si(nome="a"), "nome: Extra inputs"),
        (lambda task: task.si("a"), "by keyword"),
        (lambda _: 7, "a canvas is made of"),
    ],
)
def test_what_cannot_be_a_step_is_refused(spoil: Any, text: str) -> None:
    task: Any = find_task("flowtest.act")
    with pytest.raises(FlowDefinitionError, match=text.replace("(", r"\(").replace(")", r"\)")):
        Flow.from_canvas("canvas", chain(sig("first"), spoil(task)) if text != "a canvas is made of" else spoil(task))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_dead_lettered_member_that_is_redriven_lets_the_body_run(stage: FlowStage) -> None:
    """And the canvas's order holds on a real worker."""
    mended = stage.folder / "mended"
    notes = str(stage.notes)
    header = [sig("b", notes=notes, is_permanent=True, until=str(mended)), sig("c", notes=notes)]
    run = Flow.from_canvas("canvas", chain(sig("a", notes=notes), chord(header, sig("f", notes=notes)))).start()
    stage.worker()
    assert stage.wait_ended(run.id) == "failed"
    stage.wait_letters(1)

    mended.touch()
    stage.redrive(stage.letters()[0].id)

    assert stage.wait_ended(run.id, state="succeeded") == "succeeded"
    assert stage.done()[0] == "a"
    assert stage.done()[-1] == "f"
    assert stage.done().count("f") == 1
