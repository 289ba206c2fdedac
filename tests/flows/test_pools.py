"""Each feature of flows once on each pool, with plain and with `async def` handlers."""

from datetime import timedelta
from typing import Any

import pytest

from taskyard.flows import steering
from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from tests.flows.app import Act, Gather, Split, act, act_async, gather, gather_async, split, split_async
from tests.flows.flow_stage import FlowStage

POLL = Poll(every=timedelta(milliseconds=20), within=timedelta(minutes=5))


@pytest.mark.parametrize(
    ("pool", "tasks", "database"),
    [
        ("asyncio", (act_async, gather_async, split_async), "postgresql"),
        ("prefork", (act_async, gather_async, split_async), "sqlite"),
        ("threads", (act, gather, split), "sqlite"),
        ("solo", (act, gather, split), "postgresql"),
    ],
    indirect=["database"],
)
def test_every_feature_works_on_every_pool(stage: FlowStage, pool: str, tasks: tuple[Any, Any, Any]) -> None:
    do, collect, add = tasks
    notes = str(stage.notes)
    inner = Flow("test.inner")
    inner.step("inside", do, Act(name="inside"))
    flow = Flow("test.features", deadline=timedelta(minutes=10))
    first = flow.step("first", do, Act(name="first", notes=notes, value=41, fail_first=1))
    polled = flow.step("polled", do, Act(name="polled", notes=notes, pend=2), after=[first], poll=POLL)
    parts = flow.fan_out("members", do, [Act(name=f"m{i}", value=i) for i in range(6)], at_once=2, after=[polled])
    added = flow.step("added", add, Split(parts=3), after=[first])
    paid = flow.wait_for_event("paid", "payment.received", pool)
    within = flow.subflow("within", inner, after=[first])
    bad = flow.step("bad", do, Act(name="bad", is_permanent=True), after=[first])
    flow.step("group", collect, Gather(group="members"), after=[parts, added, paid, within, bad.if_failed("ignore")])
    flow.step("single", collect, Gather(single="first"), after=[added])
    stage.worker(pool=pool, slots=4)

    run = flow.start()
    assert steering.signal_flow("payment.received", pool, 7) == 1

    assert stage.wait_ended(run.id) == "succeeded"
    steps = stage.steps(run.id)
    assert (steps["first"].attempts, steps["polled"].polls, steps["paid"].result) == (2, 2, 7)
    assert steps["group"].result == {"count": 6, "sum": 15, "failures": 0}
    assert steps["single"].result == {"result": 41, "failures": {}}
    assert [name for name, row in steps.items() if row.state != "succeeded"] == ["bad"]


@pytest.mark.parametrize(
    ("pool", "do", "database"),
    [
        ("asyncio", act_async, "sqlite"),
        ("prefork", act, "postgresql"),
        ("threads", act_async, "postgresql"),
        ("solo", act, "sqlite"),
    ],
    indirect=["database"],
)
def test_a_flow_is_undone_on_every_pool(stage: FlowStage, pool: str, do: Any) -> None:
    notes = str(stage.notes)
    flow = Flow("test.undone")
    one = flow.step("one", do, Act(name="one", notes=notes), undo=(do, Act(name="undo", notes=notes)))
    flow.step("two", do, Act(name="two", notes=notes, fail_first=9), after=[one])
    flow.on_failure("tell", do, Act(name="tell", notes=notes))
    stage.worker(pool=pool, slots=2)

    run = flow.start()

    assert stage.wait_ended(run.id) == "compensated"
    assert stage.done() == ["one", "two", "two", "two", "undo", "tell"]
