"""An act for the demo: a flow fails at its third step, what it did is undone, and once mended it is resumed."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from scripts.demo.markets import ActError, Say, wait_for
from scripts.demo.orders import Order, order_flow
from taskyard.cli.flows.drawing import tree_lines
from taskyard.database.engine import open_session
from taskyard.flows.queries import edges_of, find_flow, member_counts, steps_of
from taskyard.flows.states import ENDED_FLOWS
from taskyard.flows.steering import resume_flow


def show_flow(folder: Path, say: Say) -> UUID:
    """
    Run an order that cannot be shipped, mend what was missing, and resume it; the worker knows the tasks of orders.

    Returns:
        The flow's id.

    Raises:
        ActError: It did not end as it must, or not in time.
    """
    key = folder / "courier.key"
    flow_id = order_flow(Order(order_id="42", courier_key=str(key))).start().id
    reason = _wait_ended(flow_id, "compensated")
    say(f"an order of three steps is compensated: {reason}")
    _say_tree(flow_id, say)
    key.touch()
    names = resume_flow(flow_id, "the key is there")
    say(f"the key is there: resumed, which runs {', '.join(names)}")
    _wait_ended(flow_id, "succeeded")
    _say_tree(flow_id, say)
    return flow_id


def _wait_ended(flow_id: UUID, expected: str) -> str | None:
    """Wait for the end; return why it ended so."""

    def ended() -> bool:
        return _state(flow_id)[0] in ENDED_FLOWS

    wait_for(ended, f"flow {flow_id} ends")
    state, reason = _state(flow_id)
    if state != expected:
        raise ActError(f"flow {flow_id} is {state}, and not {expected}: {reason}")
    return reason


def _state(flow_id: UUID) -> tuple[str, str | None]:
    with open_session() as session:
        flow = find_flow(session, flow_id)
        return (flow.state, flow.reason) if flow else ("unknown", None)


def _say_tree(flow_id: UUID, say: Say) -> None:
    for line in _tree(flow_id):
        say(f"  {line.rstrip()}")


def _tree(flow_id: UUID) -> Iterator[str]:
    with open_session() as session:
        steps, edges = steps_of(session, flow_id), edges_of(session, flow_id)
        yield from tree_lines(steps, edges, member_counts(session, flow_id))
