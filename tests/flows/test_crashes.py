"""A worker that is killed anywhere between "step done" and "children sent" loses nothing and doubles nothing."""

from pathlib import Path

import pytest

from taskyard.flows.definition.flow import Flow
from taskyard.flows.release.starting import FlowRun
from tests.flows.app import Act, Gather, act, act_async, gather
from tests.flows.flow_stage import LIMIT, FlowStage
from tests.waiting import wait_for
from tests.workers import Worker

NEEDED = {"SELECT", "UPDATE", "commit", "committed", "send", "sent"}  # else the switch misses what it must see
ENDED = {"one": "succeeded", "undo:one": "skipped", "two": "succeeded", "three": "succeeded", "four": "succeeded"}


@pytest.mark.parametrize(
    ("pool", "database"),
    [("threads", "postgresql"), ("prefork", "sqlite"), ("asyncio", "postgresql"), ("solo", "sqlite")],
    indirect=["database"],
)
def test_a_kill_between_done_and_sent_changes_nothing(stage: FlowStage, pool: str) -> None:
    """Around the commit, and when the children were sent; `make chaos` has all points on both databases."""
    points = _count_points(stage, pool)
    spare = stage.worker("spare", pool, slots=2)
    for place in (points.index("commit"), points.index("committed"), points.index("sent")):
        _crash_at(stage, spare, pool, points, place)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pool", ["threads", "prefork", "asyncio", "solo"])
def test_a_kill_at_any_statement_between_done_and_sent_changes_nothing(stage: FlowStage, pool: str) -> None:
    points = _count_points(stage, pool)
    spare = stage.worker("spare", pool, slots=2)
    for place in range(len(points)):
        _crash_at(stage, spare, pool, points, place)


def _count_points(stage: FlowStage, pool: str) -> list[str]:
    """Return what a worker does after the handler of a step has returned, in order."""
    counting = stage.worker("counting", pool, slots=1, CRASH_AT="0", CRASH_FOLDER=str(stage.folder))
    run = _start(stage, pool, "count")
    assert stage.wait_ended(run.id) == "succeeded"
    counting.stop()
    points = (stage.folder / "points").read_text().split()
    assert set(points) >= NEEDED
    assert points.index("commit") < points.index("send"), "nothing is sent before it is recorded"
    return points


def _crash_at(stage: FlowStage, spare: Worker, pool: str, points: list[str], place: int) -> None:
    """Let a worker die there, and another one go on."""
    name, marker = f"p{place}", stage.folder / f"crashed.{place + 1}"
    stage.worker(name, pool, slots=1, CRASH_AT=str(place + 1), CRASH_FOLDER=str(stage.folder))
    spare.suspend()  # the armed step runs on the worker that will die
    run = _start(stage, pool, name)
    _wait_crash(stage, run, marker)
    spare.resume()

    assert stage.wait_ended(run.id) == "succeeded"
    assert stage.states(run.id) == ENDED
    assert {row.generation for row in stage.steps(run.id).values() if row.role == "step"} == {1}
    done = stage.done()
    executions = {step: done.count(f"{name}.{step}") for step in ("one", "two", "three", "undo")}
    is_recorded = place > points.index("commit")
    assert executions == {"one": 1 if is_recorded else 2, "two": 1, "three": 1, "undo": 0}, points[: place + 1]


def _start(stage: FlowStage, pool: str, name: str) -> FlowRun:
    notes, task = str(stage.notes), act_async if pool == "asyncio" else act
    flow = Flow("test.crash", key=name)
    undo = (task, Act(name=f"{name}.undo", notes=notes))
    one = flow.step("one", task, Act(name=f"{name}.one", notes=notes, value=1, is_armed=True), undo=undo)
    two = flow.step("two", task, Act(name=f"{name}.two", notes=notes), after=[one])
    three = flow.step("three", task, Act(name=f"{name}.three", notes=notes), after=[one])
    flow.step("four", gather, Gather(single="one"), after=[two, three])
    return flow.start()


def _wait_crash(stage: FlowStage, run: FlowRun, marker: Path) -> None:
    wait_for(marker.exists, LIMIT, "the worker dies", lambda: stage.tell(run.id))
