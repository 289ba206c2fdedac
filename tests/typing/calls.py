"""Good and bad calls of a typed task; a comment ``# wrong: code`` names the error that mypy must report on its line."""

from datetime import timedelta
from uuid import UUID

from taskyard.flows.definition.flow import Flow
from taskyard.flows.running.current import result_of, results_of
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload
from taskyard.tasks.sending import enqueue_many, send


class Move(Payload):
    """A payload with a required and an optional field."""

    item_id: UUID
    copies: int = 1


class Label(Payload):
    """A payload that does not fit the task."""

    text: str


@task("typing.move", Move, queue=MAINTENANCE)
def move(payload: Move) -> None:
    """Do nothing."""


@task("typing.wrong_handler", Move, queue=MAINTENANCE)  # wrong: arg-type
def takes_a_number(payload: int) -> None:
    """Takes something else than its payload model."""


def good_calls(item: UUID) -> None:
    """Every call here is right."""
    move.delay(item_id=item)
    move.delay(item_id=item, copies=2)
    move.apply_async(kwargs={"item_id": str(item)}, priority="high", countdown=1.5, dedup_key="x")
    move.enqueue(Move(item_id=item), group_key="tenant", throttle=timedelta(seconds=1))
    enqueue_many(move, [Move(item_id=item)], priority=9)
    send("typing.move", {"item_id": str(item)}, user_id="ann")


def bad_calls(item: UUID) -> None:
    """Every call here is wrong."""
    move.delay()  # wrong: call-arg
    move.delay(item_id=1)  # wrong: arg-type
    move.delay(item_id=item, copys=2)  # wrong: call-arg
    move.delay(item)  # wrong: call-arg
    move.apply_async(kwargs={}, priority="urgent")  # wrong: arg-type
    move.enqueue(Move(item_id=item), retries=3)  # wrong: call-arg
    enqueue_many(move, [item])  # wrong: misc


def good_flows(item: UUID) -> Move:
    """Every step here takes a payload of its task, and every result is what it is read as."""
    flow, payload = Flow("typing.good"), Move(item_id=item)
    first = flow.step("first", move, payload, undo=(move, payload))
    parts = flow.fan_out("parts", move, [payload], after=[first.if_failed("ignore")])
    flow.step("last", move, payload, after=[parts, "first"])
    flow.on_failure("tell", move, payload)
    count: int = result_of("first", int)
    labels: list[tuple[int, Label]] = list(results_of("parts", Label))
    return result_of(f"{count}{labels}", Move)


def bad_flows(item: UUID) -> Move:
    """Every step and every result here is of a wrong type."""
    flow, payload, label = Flow("typing.bad"), Move(item_id=item), Label(text="x")
    first = flow.step("first", move, label)  # wrong: misc
    flow.step("second", move, payload, undo=(move, label))  # wrong: misc
    flow.fan_out("parts", move, [label])  # wrong: misc
    flow.on_failure("tell", move, label)  # wrong: misc
    flow.step("third", takes_a_number, 7)  # wrong: misc
    flow.step("fourth", move, payload, after=[first.if_failed("sometimes")])  # wrong: arg-type
    count: str = result_of("first", int)  # wrong: assignment
    return result_of(count, Label)  # wrong: return-value
