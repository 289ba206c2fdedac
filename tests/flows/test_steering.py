"""Cancel, resume, retry, skip, approve and deadlines: whoever comes first, every flow ends in a known state."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from taskyard.database.columns import utc_now
from taskyard.flows import steering
from taskyard.flows.definition.flow import Flow, Step
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.rules.repair import NotPossibleError
from taskyard.history.operator_log import Operation
from tests.flows.app import Act, act
from tests.flows.flow_stage import FlowStage

ONE = Act(name="one")


def chain(*names: str, deadline: timedelta | None = None) -> UUID:
    """Start a flow of steps after each other, each with an undo, and a failure step."""
    flow = Flow("test.steer", deadline=deadline)
    before: list[Step] = []
    for name in names:
        before = [flow.step(name, act, ONE, after=before, undo=(act, ONE))]
    flow.on_failure("tell", act, ONE)
    return flow.start().id


def test_cancel_before_the_first_step_runs_only_the_failure_step(stage: FlowStage) -> None:
    flow_id = chain("a", "b")

    steering.cancel_flow(flow_id, "not needed")

    assert stage.begin(flow_id, "a").verdict == "over"
    stage.run(flow_id, "tell")
    assert stage.flow(flow_id).state == "cancelled"
    assert stage.states(flow_id) == {
        "a": "cancelled", "undo:a": "blocked", "b": "cancelled", "undo:b": "blocked", "tell": "succeeded"
    }  # fmt: skip


def test_cancel_waits_for_what_runs_and_undoes_it(stage: FlowStage) -> None:
    flow_id = chain("a", "b")
    stage.begin(flow_id, "a")

    steering.cancel_flow(flow_id, "not needed")

    assert stage.states(flow_id)["a"] == "running"
    stage.record(flow_id, "a", "succeeded")
    stage.run(flow_id, "undo:a")
    stage.run(flow_id, "tell")
    assert (stage.flow(flow_id).state, stage.states(flow_id)["a"]) == ("cancelled", "compensated")


def test_a_step_whose_worker_is_lost_while_its_flow_ends_is_undone(stage: FlowStage) -> None:
    flow_id = chain("a", "b")
    stage.begin(flow_id, "a")
    steering.cancel_flow(flow_id, "not needed")

    assert stage.begin(flow_id, "a").verdict == "over"  # its message came back
    stage.store.interrupted(stage.ref(flow_id, "a"))

    stage.run(flow_id, "undo:a")
    stage.run(flow_id, "tell")
    assert stage.flow(flow_id).state == "cancelled"


def test_cancel_and_success_at_the_same_moment_leave_one_of_both(stage: FlowStage) -> None:
    for _ in range(5):
        flow_id = chain("a")
        stage.begin(flow_id, "a")
        with ThreadPoolExecutor(2) as pool:
            done = pool.submit(stage.record, flow_id, "a", "succeeded")
            cancelled = pool.submit(steering.cancel_flow, flow_id, "now")
        done.result()
        if cancelled.exception() is None:
            stage.run(flow_id, "undo:a")
            stage.run(flow_id, "tell")
        else:
            assert isinstance(cancelled.exception(), NotPossibleError)
        expected = "cancelled" if cancelled.exception() is None else "succeeded"
        assert stage.flow(flow_id).state == expected


def test_two_last_parents_at_the_same_moment_release_the_child_once(stage: FlowStage) -> None:
    for _ in range(5):
        flow = Flow("test.join")
        parents = [flow.step(name, act, ONE) for name in ("a", "b")]
        flow.step("child", act, ONE, after=parents)
        flow_id = flow.start().id
        for name in ("a", "b"):
            stage.begin(flow_id, name)
        with ThreadPoolExecutor(2) as pool:
            for both in [pool.submit(stage.record, flow_id, name, "succeeded") for name in ("a", "b")]:
                both.result()
        child = stage.steps(flow_id)["child"]
        assert (child.state, child.generation) == ("queued", 1)


def test_a_late_or_repeated_outcome_changes_nothing(stage: FlowStage) -> None:
    flow_id = chain("a", "b")
    stage.run(flow_id, "a", result=1)
    for kind in ("succeeded", "failed", "retrying"):
        stage.record(flow_id, "a", kind, result=2)
    assert stage.steps(flow_id)["a"].result == 1
    assert stage.steps(flow_id)["b"].generation == 1


def test_one_of_two_operators_resumes(stage: FlowStage) -> None:
    flow_id = chain("a", "b")
    stage.run(flow_id, "a")
    stage.run(flow_id, "b", "failed", error="no")
    stage.run(flow_id, "undo:a")
    stage.run(flow_id, "tell")
    assert stage.flow(flow_id).state == "compensated"

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(steering.resume_flow, flow_id, "mended") for _ in range(2)]
    errors = [each.exception() for each in both]

    assert sorted(error is None for error in errors) == [False, True]
    assert stage.states(flow_id)["a"] == "queued"
    stage.run(flow_id, "a")
    stage.run(flow_id, "b")
    assert stage.flow(flow_id).state == "succeeded"


def test_retry_of_a_succeeded_step_is_refused_and_a_skip_is_in_the_operator_log(stage: FlowStage) -> None:
    flow_id = chain("a", "b")
    stage.run(flow_id, "a")
    with pytest.raises(NotPossibleError, match="only a failed step"):
        steering.retry_flow_step(flow_id, "a")

    steering.skip_flow_step(flow_id, "b", "done by hand")

    assert stage.flow(flow_id).state == "succeeded"
    with stage.session() as session:
        row = session.exec(select(Operation)).one()
    assert (row.verb, row.target, row.reason, row.filter) == (
        "flows skip", str(flow_id), "done by hand", {"step": "b"}
    )  # fmt: skip


def test_a_deadline_and_success_at_the_same_moment_leave_one_of_both(stage: FlowStage) -> None:
    for _ in range(5):
        flow_id = chain("a", deadline=timedelta(minutes=1))
        stage.begin(flow_id, "a")
        _set_deadline_to_now(stage)
        with ThreadPoolExecutor(2) as pool:
            swept, done = pool.submit(stage.sweep), pool.submit(stage.record, flow_id, "a", "succeeded")
        swept.result()
        done.result()
        if stage.flow(flow_id).state != "succeeded":
            stage.run(flow_id, "undo:a")
            stage.run(flow_id, "tell")
            assert stage.flow(flow_id).state == "compensated"
            assert "deadline" in (stage.flow(flow_id).reason or "")


def test_a_group_that_is_too_late_begins_no_more_members_and_keeps_no_flow_open(stage: FlowStage) -> None:
    flow = Flow("test.late_group")
    group = flow.fan_out("parts", act, [ONE, ONE, ONE], at_once=1, deadline=timedelta(minutes=1))
    flow.step("body", act, ONE, after=[group.if_failed("ignore")])
    flow_id = flow.start().id
    stage.begin(flow_id, "parts[0]")
    past = utc_now() - timedelta(seconds=1)
    with stage.session() as session, session.begin():
        session.execute(update(StepRow).where(col(StepRow.name) == "parts").values(deadline_at=past, check_at=past))

    stage.sweep()
    stage.run(flow_id, "body")
    stage.record(flow_id, "parts[0]", "succeeded")

    assert stage.states(flow_id) == {
        "parts": "failed", "parts[0]": "succeeded", "parts[1]": "cancelled", "parts[2]": "cancelled",
        "body": "succeeded",
    }  # fmt: skip
    assert stage.flow(flow_id).state == "succeeded"


def test_a_group_that_is_skipped_begins_no_more_members_and_keeps_no_flow_open(stage: FlowStage) -> None:
    flow = Flow("test.skipped_group")
    flow.fan_out("parts", act, [ONE, ONE, ONE], at_once=1)
    flow_id = flow.start().id
    stage.begin(flow_id, "parts[0]")

    steering.skip_flow_step(flow_id, "parts", "not needed")
    stage.record(flow_id, "parts[0]", "succeeded")

    assert stage.flow(flow_id).state == "succeeded"
    assert stage.states(flow_id)["parts[2]"] == "cancelled"


def test_an_event_may_come_before_the_step_that_waits_for_it(stage: FlowStage) -> None:
    flow = Flow("test.events")
    first = flow.step("first", act, ONE)
    paid = flow.wait_for_event("paid", "payment.received", "order-7", after=[first])
    yes = flow.wait_for_approval("yes", after=[paid])
    flow.step("ship", act, ONE, after=[yes])
    flow_id = flow.start().id

    assert steering.signal_flow("payment.received", "order-8", {}) == 0
    assert steering.signal_flow("payment.received", "order-7", {"amount": "5"}) == 1
    stage.run(flow_id, "first")
    assert stage.steps(flow_id)["paid"].result == {"amount": "5"}
    steering.approve_step(flow_id, "yes", {"by": "boss"})
    stage.run(flow_id, "ship")

    assert stage.flow(flow_id).state == "succeeded"


def test_an_approval_that_does_not_come_fails_the_flow(stage: FlowStage) -> None:
    flow = Flow("test.late")
    flow.wait_for_approval("yes", within=timedelta(minutes=1))
    flow_id = flow.start().id
    past = utc_now() - timedelta(seconds=1)
    with stage.session() as session, session.begin():
        session.execute(update(StepRow).values(deadline_at=past, check_at=past))

    stage.sweep()

    assert stage.flow(flow_id).state == "failed"
    assert "deadline" in (stage.flow(flow_id).reason or "")


def test_an_inner_flow_that_fails_fails_the_outer_one_and_is_cancelled_with_it(stage: FlowStage) -> None:
    for how in ("failed", "succeeded", "cancelled"):
        inner = Flow("test.inner")
        inner.step("work", act, ONE)
        outer = Flow("test.outer")
        outer.subflow("inside", inner)
        outer_id = outer.start().id
        inner_id = _inner_of(stage, outer_id)
        if how == "cancelled":
            steering.cancel_flow(outer_id, "no need")
        else:
            stage.run(inner_id, "work", how)
            stage.sweep()
        assert (stage.flow(outer_id).state, stage.flow(inner_id).state) == (how, how)


def test_policies_say_what_a_failure_means(stage: FlowStage) -> None:
    """The states of the child, and of the flow, when one of two parents failed and the other one runs on."""
    expected = {"fail": ("cancelled", "compensating"), "continue": ("queued", "running")}
    expected |= dict.fromkeys(("ignore", "drop"), ("blocked", "running"))
    for policy, states in expected.items():
        flow = Flow("test.policy")
        bad, good = flow.step("bad", act, ONE), flow.step("good", act, ONE)
        flow.step("child", act, ONE, after=[bad.if_failed(policy), good])  # type: ignore[arg-type]  # one of POLICIES
        flow_id = flow.start().id
        stage.begin(flow_id, "good")
        stage.run(flow_id, "bad", "failed", error="no")
        assert (stage.states(flow_id)["child"], stage.flow(flow_id).state) == states
        stage.record(flow_id, "good", "succeeded")
        if policy != "fail":
            stage.run(flow_id, "child")
        assert stage.flow(flow_id).state == ("failed" if policy == "fail" else "succeeded")


def test_a_failed_cleanup_fails_nothing(stage: FlowStage) -> None:
    flow = Flow("test.cleanup")
    goal = flow.step("goal", act, ONE, undo=(act, ONE))
    flow.step("tidy", act, ONE, after=[goal], cleanup=True)
    flow_id = flow.start().id
    stage.run(flow_id, "goal")
    stage.run(flow_id, "tidy", "failed", error="in use")
    assert (stage.flow(flow_id).state, stage.states(flow_id)["tidy"]) == ("succeeded", "failed")


def _inner_of(stage: FlowStage, outer: UUID) -> UUID:
    with stage.session() as session:
        return session.exec(select(FlowRow.id).where(FlowRow.parent_id == outer)).one()


def _set_deadline_to_now(stage: FlowStage) -> None:
    with stage.session() as session, session.begin():
        session.execute(update(FlowRow).where(col(FlowRow.state) == "running").values(check_at=utc_now()))
