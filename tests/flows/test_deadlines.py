"""Deadlines end flows and steps within seconds while the broker holds; the sweeper is for when it does not."""

from datetime import timedelta
from uuid import UUID

from taskyard.flows import steering
from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from tests.flows.app import Act, act
from tests.flows.flow_stage import FlowStage

SOON = timedelta(seconds=1)
ONE = Act(name="one")


def test_deadlines_end_flows_steps_and_polls_without_the_sweeper(stage: FlowStage) -> None:
    hold = Act(name="held", hold=str(stage.folder / "hold"))
    held = {"flow": Flow("test.flow", deadline=SOON), "step": Flow("test.step")}
    held["flow"].step("held", act, hold)
    held["step"].step("held", act, hold, deadline=SOON)
    others = {name: Flow(f"test.{name}") for name in ("event", "poll", "outer")}
    others["event"].wait_for_event("paid", "payment.received", within=SOON)
    never = Act(name="never", notes=str(stage.notes), pend=1000)
    others["poll"].step("live", act, never, poll=Poll(every=timedelta(milliseconds=300), within=SOON))
    inner = Flow("test.inner")
    inner.wait_for_approval("yes")
    others["outer"].subflow("inside", inner, deadline=SOON)
    stage.worker(slots=6)

    running = {name: flow.start().id for name, flow in (held | others).items()}

    for name in others:
        assert stage.wait_ended(running[name]) == "failed"
    stage.wait_ended(running["flow"], state="compensating")
    assert stage.wait_ended(running["step"]) == "failed"
    (stage.folder / "hold").touch()
    assert stage.wait_ended(running["flow"]) == "failed"
    for name in ("flow", "step", "event", "outer"):
        assert "deadline: not done after 0:00:01" in (stage.flow(running[name]).reason or "")
    assert "still pending after 0:00:01" in (stage.flow(running["poll"]).reason or "")


def test_a_deadline_that_the_broker_lost_is_seen_by_the_sweeper(stage: FlowStage) -> None:
    flow_id = _started(deadline=SOON)
    stage.valkey.client().flushall()
    stage.make_late(flow_id)

    stage.sweep()

    assert stage.flow(flow_id).state == "failed"


def test_a_deadline_of_an_earlier_start_ends_nothing(stage: FlowStage) -> None:
    """A resumed flow, and a step that is run again, have their whole time."""
    flow_id = _started(deadline=timedelta(minutes=5))
    stage.run(flow_id, "one", "failed", error="no")
    steering.resume_flow(flow_id, "mended")

    assert stage.check_deadline(flow_id, None) > timedelta(minutes=4)
    assert stage.check_deadline(flow_id, stage.steps(flow_id)["one"].seq) == timedelta(0)  # it has none
    assert stage.flow(flow_id).state == "running"
    stage.run(flow_id, "one")
    assert stage.check_deadline(flow_id, None) == timedelta(0)
    assert stage.flow(flow_id).state == "succeeded"


def _started(deadline: timedelta) -> UUID:
    flow = Flow("test.late", deadline=deadline)
    flow.step("one", act, ONE)
    return flow.start().id
