"""A worker that is killed anywhere between "step done" and "children sent" loses nothing and doubles nothing."""

from pathlib import Path

import pytest

from taskyard.flows.definition.flow import Flow
from taskyard.flows.release.starting import FlowRun
from tests.flows.app import Act, Gather, act, gather
from tests.flows.flow_stage import LIMIT, FlowStage
from tests.waiting import wait_for
from tests.workers import Worker

MOST_POINTS, FEWEST_POINTS = 60, 12  # lock, step, children, updates, commit, and two messages


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_kill_between_done_and_sent_changes_nothing(stage: FlowStage, pool: str) -> None:
    """Before the first statement, in the middle, and when the first of two children was sent; all points in chaos."""
    spare = stage.worker("spare", pool, slots=2)
    for point in (1, 7, 12):
        assert _crash_at(stage, spare, pool, point), "there is such a point"


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_kill_at_any_statement_between_done_and_sent_changes_nothing(stage: FlowStage, pool: str) -> None:
    """Every statement, commit and message after the handler's return is a crash point, until there are no more."""
    spare = stage.worker("spare", pool, slots=2)
    point = 1
    while _crash_at(stage, spare, pool, point):
        point += 1
    assert MOST_POINTS > point > FEWEST_POINTS


def _crash_at(stage: FlowStage, spare: Worker, pool: str, point: int) -> bool:
    """Let a worker die there, and another one go on; False: there is no such point."""
    marker = stage.folder / f"crashed.{point}"
    worker = stage.worker(f"w{point}", pool, slots=2, CRASH_AT=str(point), CRASH_MARKER=str(marker))
    spare.suspend()  # the armed step runs on the worker that will die
    run = _start(stage, str(point))
    has_crashed = _wait_crash_or_end(stage, run, marker)
    spare.resume()

    assert stage.wait_ended(run.id) == "succeeded"
    assert set(stage.states(run.id).values()) <= {"succeeded", "skipped"}
    _check_executions(stage, str(point))
    if not has_crashed:
        worker.stop()
    return has_crashed


def _start(stage: FlowStage, point: str) -> FlowRun:
    notes = str(stage.notes)

    def named(name: str, **more: bool) -> Act:
        return Act(name=f"{point}.{name}", notes=notes, value=1, **more)  # type: ignore[arg-type]

    flow = Flow("test.crash", key=point)
    one = flow.step("one", act, named("one", is_armed=True), undo=(act, named("undo")))
    two = flow.step("two", act, named("two"), after=[one])
    three = flow.step("three", act, named("three"), after=[one])
    flow.step("four", gather, Gather(single="one"), after=[two, three])
    return flow.start()


def _wait_crash_or_end(stage: FlowStage, run: FlowRun, marker: Path) -> bool:
    def is_over() -> str:
        if marker.exists():
            return "crashed"
        return "ended" if stage.states(run.id)["four"] == "succeeded" else ""

    return wait_for(is_over, LIMIT, "a crash, or the end", lambda: stage.tell(run.id)) == "crashed"


def _check_executions(stage: FlowStage, point: str) -> None:
    """What the killed worker ran may run twice, as any task; the rest runs once, and nothing is undone."""
    counts = {name: stage.done().count(f"{point}.{name}") for name in ("one", "two", "three", "undo")}
    assert {counts["one"], counts["two"], counts["three"]} <= {1, 2}
    assert counts["undo"] == 0
