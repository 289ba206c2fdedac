"""Flows of Celery's canvas."""

from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from taskyard.flows.definition.flow import Flow
from taskyard.flows.plan import FlowDefinitionError
from taskyard.tasks.sending import find_task
from tests.flows import app as tasks_of_tests
from tests.flows.flow_stage import LIMIT, FlowStage
from tests.waiting import wait_for

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


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_worker_that_dies_between_the_last_header_task_and_the_body_does_not_cost_the_body(
    stage: FlowStage, pool: str
) -> None:
    """And a nested canvas runs in its order; the one slot takes the header's tasks as they were written."""
    notes, marker = str(stage.notes), stage.folder / "crashed.7"
    header = [sig("b", notes=notes), sig("c", notes=notes)]
    header.append(group(sig("d", notes=notes), sig("e", notes=notes, is_armed=True)))
    run = Flow.from_canvas("canvas", chain(sig("a", notes=notes), chord(header, sig("f", notes=notes)))).start()
    stage.worker("dying", pool, slots=1, CRASH_AT="7", CRASH_FOLDER=str(stage.folder))
    wait_for(marker.exists, LIMIT, "the worker dies after the last header task", lambda: stage.tell(run.id))

    stage.worker("next", pool)

    assert stage.wait_ended(run.id) == "succeeded"
    assert stage.done()[:5] == ["a", "b", "c", "d", "e"]
    assert set(stage.done()[5:-1]) <= {"e"}
    assert (stage.done()[-1], stage.done().count("f")) == ("f", 1)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_plain_chord_of_our_tasks_works_as_celery_documents_it(stage: FlowStage) -> None:
    """The body runs once, after the whole header; when a member failed it does not run, and its result says so."""
    notes = str(stage.notes)
    good, bad = sig("b", notes=notes), sig("bad", notes=notes, is_permanent=True)
    stage.worker()

    done = chord([sig("a", notes=notes), good])(sig("body", notes=notes, value=7).set(ignore_result=False))
    assert done.get(timeout=LIMIT) == 7
    assert (sorted(stage.done()[:-1]), stage.done()[-1]) == (["a", "b"], "body")

    failed = chord([bad, good])(sig("never", notes=notes).set(ignore_result=False))
    with pytest.raises(ChordError, match="bad cannot be"):
        failed.get(timeout=LIMIT)
    assert "never" not in stage.done()


def test_a_canvas_without_end_is_refused() -> None:
    canvas = sig("a")
    for _ in range(5000):
        canvas = {"task": "celery.group", "args": [], "kwargs": {"tasks": [canvas]}, "subtask_type": "group"}
    with pytest.raises(FlowDefinitionError, match="nested too deep"):
        Flow.from_canvas("canvas", canvas)
