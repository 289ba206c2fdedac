"""What cannot be a flow is refused in one clear line, before anything is written."""

from datetime import timedelta
from itertools import repeat
from typing import Any

import pytest
from sqlmodel import func, select

from taskyard.flows.definition.flow import Flow
from taskyard.flows.definition.polling import Poll
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.plan import FlowDefinitionError
from tests.flows.app import Act, Gather, act
from tests.flows.flow_stage import FlowStage

ONE = Act(name="one")
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def _cycle(flow: Flow) -> None:
    flow.step("a", act, ONE, after=["c"])
    flow.step("b", act, ONE, after=["a"])
    flow.step("c", act, ONE, after=["b"])


def _unknown(flow: Flow) -> None:
    flow.step("a", act, ONE, after=["nobody"])


def _twice(flow: Flow) -> None:
    flow.step("a", act, ONE)
    flow.step("a", act, ONE)


def _foreign(flow: Flow) -> None:
    flow.step("a", act, ONE, after=[Flow("other").step("x", act, ONE)])


def _two_edges(flow: Flow) -> None:
    first = flow.step("a", act, ONE)
    flow.step("b", act, ONE, after=[first, first.if_failed("ignore")])


def _other_payload(flow: Flow) -> None:
    wrong: Any = Gather(single="a")
    flow.step("a", act, wrong)


def _no_task(flow: Flow) -> None:
    wrong: Any = print
    flow.step("a", wrong, ONE)


def _policy(flow: Flow) -> None:
    wrong: Any = "sometimes"
    flow.step("a", act, ONE).if_failed(wrong)


def _poll(flow: Flow) -> None:
    flow.step("a", act, ONE, poll=Poll(every=timedelta(minutes=2), within=timedelta(minutes=1)))


def _at_once(flow: Flow) -> None:
    flow.fan_out("a", act, [ONE], at_once=0)


def _deadline(flow: Flow) -> None:
    flow.step("a", act, ONE, deadline=timedelta(0))


def _large(flow: Flow) -> None:
    flow.step("a", act, Act(name="x" * 300_000))


def _named_like_a_member(flow: Flow) -> None:
    flow.step("a[0]", act, ONE)


def _deep_payload(flow: Flow) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    flow.step("a", act, Act(name="a", value=deep))


def _deep_flows(flow: Flow) -> None:
    inner = Flow("innermost")
    inner.step("a", act, ONE)
    for _ in range(10):
        outer = Flow("outer")
        outer.subflow("inside", inner)
        inner = outer
    flow.subflow("inside", inner)


def _endless(flow: Flow) -> None:
    flow.fan_out("a", act, repeat(ONE))


def _many(flow: Flow) -> None:
    for number in range(100_000):
        flow.step(f"s{number}", act, ONE)


def _no_list(flow: Flow) -> None:
    wrong: Any = flow.step("a", act, ONE)
    flow.step("b", act, ONE, after=wrong)


def _poll_of_words(_flow: Flow) -> None:
    wrong: Any = "often"
    Poll(every=wrong, within=wrong)


def _named(name: Any) -> Any:
    def write(flow: Flow) -> None:
        Flow(name)
        flow.step("a", act, ONE)

    return write


def _keyed(key: Any) -> Any:
    def write(_flow: Flow) -> None:
        Flow("keyed", key=key).step("a", act, ONE)

    return write


CASES = {
    _cycle: "flow 'bad' has a cycle: a -> b -> c -> a",
    _unknown: "'a' comes after 'nobody', which is no step of it",
    _twice: "two steps called 'a'",
    _foreign: "comes after 'x' of another flow, 'other'",
    _two_edges: "'b' names 'a' twice",
    _other_payload: "step 'a': flowtest.act takes a Act, not a Gather",
    _no_task: "step 'a'",
    _policy: "policy 'sometimes': use fail, ignore, continue, drop",
    _poll: "has no meaning",
    _at_once: "at_once 0 is not between 1 and 10000",
    _deadline: "use a timedelta of more than 0",
    _large: "at most 262144 may travel",
    _named_like_a_member: "step 'a[0]': use 1-200 letters",
    lambda _: None: "flow 'bad' has no step",
    _deep_payload: "step 'a': Act: Error serializing to JSON: ValueError: Maximum serialization depth exceeded",
    _deep_flows: "step 'inside': more than 10 flows are inside each other",
    _endless: "flow 'bad' has more than 50000 steps",
    _many: "flow 'bad' has more than 50000 steps",
    _no_list: "step 'b': `after` is a list of steps",
    _poll_of_words: "use timedeltas",
    **{_named(name): "use 1-200 letters" for name in ("", "a b", "two\nlines", "end\n", "x" * 201, "\x00", 7, None)},
    **{_keyed(key): "use 1 to 255 printable" for key in ("", "two\nlines", "end\n", "x" * 256, "\x00", 7)},
}


@pytest.mark.parametrize(
    ("write", "text"), CASES.items(), ids=[f"{number}{write.__name__}" for number, write in enumerate(CASES)]
)
def test_a_bad_definition_is_refused_and_nothing_is_written(stage: FlowStage, write: Any, text: str) -> None:
    flow = Flow("bad")

    with pytest.raises(FlowDefinitionError) as refused:
        _write_and_start(flow, write)

    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    with stage.session() as session:
        assert session.exec(select(func.count()).select_from(FlowRow)).one() == 0
        assert session.exec(select(func.count()).select_from(StepRow)).one() == 0


def _write_and_start(flow: Flow, write: Any) -> None:
    write(flow)
    flow.start()


def test_of_one_key_there_is_one_flow(stage: FlowStage) -> None:
    flow = Flow("keyed", key="dns:7")
    flow.step("a", act, ONE)

    first, second = flow.start(), flow.start()

    assert (first.id, first.is_duplicate, second.is_duplicate) == (second.id, False, True)
    with stage.session() as session:
        assert session.exec(select(func.count()).select_from(StepRow)).one() == 1


def test_a_key_of_another_flow_is_refused_and_a_changed_definition_is_the_stored_flow(stage: FlowStage) -> None:
    """A release that changes a definition starts nothing twice, and what runs finishes by what was stored."""
    old, new, other = Flow("keyed", key="dns:7"), Flow("keyed", key="dns:7"), Flow("another", key="dns:7")
    old.step("b", act, ONE, after=[old.step("a", act, ONE)])
    new.step("b", act, ONE, after=[new.step("more", act, ONE)])
    other.step("a", act, ONE)
    flow_id = old.start().id
    stage.run(flow_id, "a")

    assert (new.start().id, new.start().is_duplicate) == (flow_id, True)
    with pytest.raises(FlowDefinitionError, match="key 'dns:7' is that of a flow 'keyed'"):
        other.start()

    stage.run(flow_id, "b")
    assert stage.states(flow_id) == {"a": "succeeded", "b": "succeeded"}
    with stage.session() as session:
        assert session.exec(select(func.count()).select_from(FlowRow)).one() == 1


def test_a_flow_exists_if_and_only_if_the_callers_transaction_commits(stage: FlowStage) -> None:
    flow = Flow("mine")
    flow.step("a", act, ONE)

    with stage.session() as session, session.begin():
        gone = flow.start_in(session)
        session.rollback()
    with stage.session() as session, session.begin():
        kept = flow.start_in(session)
        assert stage.waiting() == 0

    with stage.session() as session:
        assert [row.id for row in session.exec(select(FlowRow)).all()] == [kept.id] != [gone.id]
    assert stage.waiting() == 1
