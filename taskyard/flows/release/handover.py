"""Hand released steps to the broker, after the commit that released them. Nothing here may fail its caller."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import event, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import col

from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.flows.models import StepRow
from taskyard.flows.release.inner import start_or_cancel_inner
from taskyard.flows.step_ref import FLOW_HEADER, StepRef
from taskyard.flows.storage.rows import Order
from taskyard.tasks.call_options import message_options
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_task import PlatformTask

AT_ONCE = 100  # messages of one call to the broker
_WAITING = "taskyard.flows"  # session.info: what to hand over when the transaction is committed

log = structlog.stdlib.get_logger(__name__)


def hand_over(orders: Iterable[Order]) -> None:
    """
    Send the tasks of released steps; inner flows are started or cancelled.

    The run's id follows from the release, and the broker holds one message of it at a time, so that sending twice is
    harmless. When the broker is away the sweeper sends them later.
    """
    waiting = [list(orders)]
    while waiting:
        ready = waiting.pop()
        tasks = [order for order in ready if order.kind == "task" and order.state == "queued"]
        inner = [order for order in ready if order.kind == "flow"]
        try:
            for begin in range(0, len(tasks), AT_ONCE):
                send_tasks(tasks[begin : begin + AT_ONCE])
            waiting.extend(map(start_or_cancel_inner, inner))  # what began before an error is handed over, too
        except Exception as error:  # noqa: BLE001 - an edge of the platform: what was recorded stands, come what may
            log.warning("flow.send_failed", steps=len(ready), error=str(error), then="the sweeper sends them")


def send_tasks(orders: Sequence[Order]) -> None:
    """
    Send the messages of some steps in one call to the broker.

    Raises:
        kombu.exceptions.OperationalError: The broker is away; some may have been sent.
    """
    with collect_duplicates(), current_app().producer_or_acquire() as producer:
        if len(orders) == 1:
            _send(orders[0], producer)
            return
        with producer.batch(max_size=AT_ONCE):
            for order in orders:
                _send(order, producer)


def _send(order: Order, producer: Any) -> None:
    """Publish with the payload as it was stored: a worker checks it, and buries what does not fit any more."""
    name, wire = order.task or "", order.payload or {}
    found: Any = current_app().tasks.get(name)
    declared = found if isinstance(found, PlatformTask) else None
    shown = declared.payload.mask(wire) if declared else dict.fromkeys(wire, "***")
    wanted: dict[str, Any] = {"dedup_key": f"flow:{order.run_id}"}
    if "priority" in order.options:
        wanted["priority"] = order.options["priority"]
    ref = StepRef(order.flow_id, order.seq, order.generation)
    wanted["headers"] = {FLOW_HEADER: ref.to_header()}
    options = message_options(shown, wanted)
    options |= {"task_id": order.run_id, "root_id": str(order.flow_id), "producer": producer}
    options["queue"] = order.options.get("queue")
    if declared is not None:
        declared.publish(wire, options)
    else:
        current_app().send_task(name, (), wire, declare=(), **options)


@dataclass(slots=True)
class _Waiting:
    """What one transaction started."""

    transaction: SessionTransaction | None
    orders: list[Order] = field(default_factory=list)
    is_checked: bool = True  # False: a savepoint was rolled back, and may have taken some with it


def hand_over_after_commit(session: Session, _flow_id: UUID, orders: Sequence[Order]) -> None:
    """Hand these over when the session's transaction is committed; forget them when it is rolled back."""
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is None:
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_soft_rollback", _note_rollback)
    transaction = session.get_transaction()
    if waiting is None or waiting.transaction is not transaction:
        waiting = session.info[_WAITING] = _Waiting(transaction)
    waiting.orders.extend(orders)


def _after_commit(session: Session) -> None:
    """SQLAlchemy calls it at the end of each savepoint, too: nothing is committed then."""
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is None or session.in_nested_transaction():
        return
    session.info[_WAITING] = _Waiting(None)
    if waiting.transaction is not session.get_transaction() or not waiting.orders:
        return
    try:
        hand_over(waiting.orders if waiting.is_checked else _still_there(session, waiting.orders))
    except Exception as error:  # noqa: BLE001 - the caller's change is committed, come what may
        log.warning("flow.send_failed", steps=len(waiting.orders), error=str(error), then="the sweeper sends them")


def _note_rollback(session: Session, _previous: Any) -> None:
    waiting: _Waiting | None = session.info.get(_WAITING)
    if waiting is not None:
        waiting.is_checked = False


def _still_there(session: Session, orders: list[Order]) -> list[Order]:
    """Ask the database which flows survived: a savepoint that was rolled back took its own with it."""
    ids = {order.flow_id for order in orders}
    with Session(session.get_bind()) as fresh:
        found = set(fresh.scalars(select(col(StepRow.flow_id)).where(col(StepRow.flow_id).in_(ids))))
    return [order for order in orders if order.flow_id in found]
