"""A worker that is killed anywhere between "step done" and "children sent" loses nothing and doubles nothing."""

import pytest

from taskyard.flows.definition import Flow, FlowRun
from tests.flows.app import Act, Gather, act, gather
from tests.flows.stage import LIMIT, Stage
from tests.waiting import wait_for

MOST_POINTS = 60


@pytest.mark.timeout(900)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_kill_at_any_statement_between_done_and_sent_changes_nothing(stage: Stage, pool: str) -> None:
    """Every statement, commit and message after the handler's return is a crash point, until there are no more."""
    spare = stage.worker("spare", pool, slots=2)
    for point in range(1, MOST_POINTS):
        marker = stage.folder / f"crashed.{point}"
        worker = stage.worker(f"w{point}", pool, slots=2, CRASH_AT=str(point), CRASH_MARKER=str(marker))
        spare.suspend()  # the armed step runs on the worker that will die
        run = _start(stage, str(point))
        has_crashed = _wait_crash_or_end(stage, run, marker)
        spare.resume()

        assert stage.wait_ended(run.id) == "succeeded"
        assert set(stage.states(run.id).values()) <= {"succeeded", "skipped"}
        _check_executions(stage, str(point))
        worker.stop()
        if not has_crashed:
            assert point > 8, "a crash point for each statement"  # noqa: PLR2004 - lock, steps, children, updates, commit, messages
            return
    raise AssertionError("there are ever more crash points")


def _start(stage: Stage, point: str) -> FlowRun:
    notes = str(stage.notes)

    def named(name: str, **more: bool) -> Act:
        return Act(name=f"{point}.{name}", notes=notes, value=1, **more)  # type: ignore[arg-type]

    flow = Flow("test.crash", key=point)
    one = flow.step("one", act, named("one", is_armed=True), undo=(act, named("undo")))
    two = flow.step("two", act, named("two"), after=[one])
    three = flow.step("three", act, named("three"), after=[one])
    flow.step("four", gather, Gather(single="one"), after=[two, three])
    return flow.start()


def _wait_crash_or_end(stage: Stage, run: FlowRun, marker: object) -> bool:
    def is_over() -> str:
        if marker.exists():  # type: ignore[attr-defined]
            return "crashed"
        return "ended" if stage.states(run.id)["four"] == "succeeded" else ""

    return wait_for(is_over, LIMIT, "a crash, or the end", lambda: stage.tell(run.id)) == "crashed"


def _check_executions(stage: Stage, point: str) -> None:
    """The handler of the killed step may run twice, as of any task; the others run once, and nothing is undone."""
    counts = {name: stage.done().count(f"{point}.{name}") for name in ("one", "two", "three", "undo")}
    assert counts["one"] in {1, 2}
    assert (counts["two"], counts["three"], counts["undo"]) == (1, 1, 0)


