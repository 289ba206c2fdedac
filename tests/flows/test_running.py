"""Flows on real workers: order, results, retries, polling, failures and what is undone."""

from datetime import timedelta

import pytest

from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from tests.flows.app import Act, Gather, Split, act, gather, split
from tests.flows.flow_stage import FlowStage


def test_steps_run_in_order_and_read_results_by_name(stage: FlowStage) -> None:
    notes = str(stage.notes)
    flow = Flow("test.order")
    first = flow.step("first", act, Act(name="first", notes=notes, value=41, fail_first=1))
    left = flow.step("left", act, Act(name="left", notes=notes), after=[first])
    right = flow.step("right", act, Act(name="right", notes=notes), after=[first])
    flow.step("last", gather, Gather(single="first"), after=[left, right])
    stage.worker()

    run = flow.start()

    assert stage.wait_ended(run.id) == "succeeded"
    assert stage.done()[:2] == ["first", "first"]
    assert sorted(stage.done()[2:]) == ["left", "right"]
    assert stage.steps(run.id)["last"].result == {"result": 41, "failures": {}}
    assert stage.steps(run.id)["first"].attempts == 2


def test_pending_steps_are_polled_without_using_attempts(stage: FlowStage) -> None:
    flow = Flow("test.poll")
    poll = Poll(every=timedelta(milliseconds=50), within=timedelta(minutes=1))
    flow.step("live", act, Act(name="live", notes=str(stage.notes), pend=5), poll=poll)
    stage.worker()

    run = flow.start()

    assert stage.wait_ended(run.id) == "succeeded"
    row = stage.steps(run.id)["live"]
    assert (row.polls, row.attempts, row.error) == (5, 1, None)


def test_a_failed_flow_is_undone_in_reverse_order_and_then_runs_its_failure_step(stage: FlowStage) -> None:
    notes = str(stage.notes)
    flow = Flow("test.undo")
    one = flow.step("one", act, Act(name="one", notes=notes), undo=(act, Act(name="undo one", notes=notes)))
    two = flow.step(
        "two", act, Act(name="two", notes=notes), after=[one], undo=(act, Act(name="undo two", notes=notes))
    )
    flow.step("three", act, Act(name="three", notes=notes, is_permanent=True), after=[two])
    flow.on_failure("tell", act, Act(name="tell", notes=notes))
    stage.worker()

    run = flow.start()

    assert stage.wait_ended(run.id) == "compensated"
    assert stage.done() == ["one", "two", "three", "undo two", "undo one", "tell"]
    assert stage.states(run.id)["one"] == "compensated"
    assert "three cannot be" in (stage.flow(run.id).reason or "")


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_group_runs_bounded_and_its_results_are_read_by_name(stage: FlowStage, pool: str) -> None:
    flow = Flow("test.group")
    parts = flow.fan_out("parts", act, [Act(name=f"p{i}", value=i) for i in range(50)], at_once=7)
    flow.step("body", gather, Gather(group="parts"), after=[parts])
    stage.worker(pool=pool)

    run = flow.start()

    assert stage.wait_ended(run.id) == "succeeded"
    assert stage.steps(run.id)["body"].result == {"count": 50, "sum": sum(range(50)), "failures": 0}


def test_a_step_adds_steps_and_its_children_wait_for_them(stage: FlowStage) -> None:
    flow = Flow("test.grow")
    parts = flow.step("split", split, Split(parts=10, notes=str(stage.notes)))
    flow.step("body", gather, Gather(group="parts"), after=[parts])
    stage.worker()

    run = flow.start()

    assert stage.wait_ended(run.id) == "succeeded"
    assert stage.steps(run.id)["body"].result["count"] == 10


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_result_that_cannot_be_kept_fails_its_step_at_once(stage: FlowStage) -> None:
    flow = Flow("test.large")
    first = flow.step("large", act, Act(name="large", notes=str(stage.notes), value="x" * 70_000))
    flow.step("next", act, Act(name="next", notes=str(stage.notes)), after=[first])
    stage.worker()

    run = flow.start()

    assert stage.wait_ended(run.id) == "failed"
    assert "70002 bytes, at most 65536 are kept" in str(stage.steps(run.id)["large"].error)
    stage.wait_letters(1)
    assert stage.done() == ["large"]
