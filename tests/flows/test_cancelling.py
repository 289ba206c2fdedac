"""Cancel a flow in each of its states, and in each state of its steps: it ends, and nothing of it stays open."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from taskyard.database.columns import utc_now
from taskyard.flows import steering
from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from taskyard.flows.rules.repair import NotPossibleError
from taskyard.flows.states import ENDED_FLOWS, FLOW_STATES, OPEN_STEPS
from tests.flows.app import Act, act
from tests.flows.flow_stage import FlowStage

ONE = Act(name="one")
POLL = Poll(every=timedelta(minutes=1), within=timedelta(hours=1))

type Reach = Callable[[FlowStage, UUID], object]  # brings the flow to where it is cancelled

STEP_CASES: dict[str, tuple[Reach, dict[str, str]]] = {
    "blocked, queued and waiting for an event": (
        lambda _stage, _flow: None, {"a": "cancelled", "b": "cancelled", "undo:a": "blocked", "event": "cancelled"}
    ),
    "running": (lambda stage, flow: stage.begin(flow, "a"), {"a": "compensated", "b": "cancelled"}),
    "pending": (lambda stage, flow: _come_back(stage, flow, "pending"), {"a": "cancelled", "undo:a": "blocked"}),
    "retrying": (lambda stage, flow: _come_back(stage, flow, "retrying"), {"a": "cancelled", "undo:a": "blocked"}),
    "succeeded": (lambda stage, flow: stage.run(flow, "a"), {"a": "compensated", "b": "cancelled"}),
    "half a group": (lambda stage, flow: stage.run(flow, "parts[0]"), {"parts": "cancelled", "parts[2]": "cancelled"}),
    "failed and ignored": (lambda stage, flow: _fail(stage, flow, "bad"), {"bad": "failed", "after": "cancelled"}),
}  # fmt: skip


@pytest.mark.parametrize("case", STEP_CASES)
def test_cancel_in_each_state_of_a_step_ends_the_flow(stage: FlowStage, case: str) -> None:
    reach, expected = STEP_CASES[case]
    flow_id = _started()
    reach(stage, flow_id)

    steering.cancel_flow(flow_id, "not needed")
    _finish(stage, flow_id)

    states = stage.states(flow_id)
    assert stage.flow(flow_id).state == "cancelled"
    assert {name: states[name] for name in expected} == expected
    assert states["tell"] == "succeeded"
    ordinary = [row for row in stage.steps(flow_id).values() if row.role == "step"]
    assert not [row.name for row in ordinary if row.state in OPEN_STEPS or row.check_at is not None]


def test_cancel_in_each_other_state_of_a_flow_is_refused_and_changes_nothing(stage: FlowStage) -> None:
    flows = {"compensating": _chain(), "succeeded": _chain(), "failed": _chain(has_undo=False)}
    flows |= {"compensated": _chain(), "cancelled": _chain()}
    stage.run(flows["succeeded"], "a")
    stage.run(flows["succeeded"], "b")
    steering.cancel_flow(flows["cancelled"], "first")
    for name in ("compensating", "failed", "compensated"):
        stage.run(flows[name], "a")
        stage.run(flows[name], "b", "failed", error="no")
    stage.run(flows["compensated"], "undo:a")
    assert {name: stage.flow(flow_id).state for name, flow_id in flows.items()} == {name: name for name in flows}
    assert {*flows, "running"} == set(FLOW_STATES)
    before = {name: stage.states(flow_id) for name, flow_id in flows.items()}

    for flow_id in flows.values():
        with pytest.raises(NotPossibleError, match="only a running one is cancelled"):
            steering.cancel_flow(flow_id, "again")

    assert {name: stage.states(flow_id) for name, flow_id in flows.items()} == before
    assert stage.flow(flows["cancelled"]).reason == "first"


def _started() -> UUID:
    """A flow that has steps of all kinds."""
    flow = Flow("test.cancel")
    a = flow.step("a", act, ONE, undo=(act, ONE), poll=POLL)
    flow.step("b", act, ONE, after=[a])
    flow.wait_for_event("event", "payment.received")
    flow.fan_out("parts", act, [ONE] * 3, at_once=1)
    bad = flow.step("bad", act, ONE)
    flow.step("after", act, ONE, after=[bad.if_failed("ignore"), a])
    flow.on_failure("tell", act, ONE)
    return flow.start().id


def _chain(*, has_undo: bool = True) -> UUID:
    flow = Flow("test.chain")
    a = flow.step("a", act, ONE, undo=(act, ONE) if has_undo else None)
    flow.step("b", act, ONE, after=[a])
    return flow.start().id


def _come_back(stage: FlowStage, flow_id: UUID, kind: str) -> None:
    stage.begin(flow_id, "a")
    stage.record(flow_id, "a", kind, due=utc_now() + timedelta(minutes=1))


def _fail(stage: FlowStage, flow_id: UUID, name: str) -> None:
    stage.run(flow_id, name, "failed", error="no")


def _finish(stage: FlowStage, flow_id: UUID) -> None:
    """Let what runs and what is queued end well, until the flow has ended."""
    while stage.flow(flow_id).state not in ENDED_FLOWS:
        states = stage.states(flow_id)
        running = [name for name, state in states.items() if state == "running"]
        queued = [name for name, state in states.items() if state == "queued"]
        assert running or queued, states
        for name in running:
            stage.record(flow_id, name, "succeeded")
        for name in queued:
            stage.run(flow_id, name)
