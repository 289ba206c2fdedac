"""Hand released steps to the broker, after the commit that released them. Nothing here may fail its caller."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any
from uuid import UUID

import structlog
from celery import current_task
from sqlalchemy import event, select
from sqlalchemy.orm import Session, SessionTransaction
from sqlmodel import col

from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.database.columns import utc_now
from taskyard.database.group_commit import GroupCommitter
from taskyard.flows.models import StepRow
from taskyard.flows.payloads import CHECK_DEADLINE, CheckDeadline
from taskyard.flows.release.inner import start_or_cancel_inner, tell_outer_of
from taskyard.flows.states import ENDED_FLOWS
from taskyard.flows.step_ref import FLOW_HEADER, StepRef
from taskyard.flows.storage.rows import WHOLE, Order
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.call_options import message_options
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_task import PlatformTask
from taskyard.tasks.sending import publishing_many

_WAITING = "taskyard.flows"  # session.info: what to hand over when the transaction is committed

log = structlog.stdlib.get_logger(__name__)


def hand_over(orders: Iterable[Order]) -> None:
    """
    Send the tasks of released steps, and those that look at their deadlines; start, cancel or end inner flows.

    The run's id follows from the release, and the broker holds one message of it at a time, so that sending twice is
    harmless. When the broker is away the sweeper sends them later.
    """
    waiting = [list(orders)]
    while waiting:
        ready = waiting.pop()
        tasks = [order for order in ready if order.kind == "task" and order.state == "queued"]
        inner = [order for order in ready if order.kind == "flow"]
        ended = [order for order in ready if order.kind == "whole" and order.state in ENDED_FLOWS]
        try:
            messages = [_message_of(order, _parent()) for order in tasks]
            messages += [
                _deadline_of(order, at) for order in ready if (at := order.deadline_at) and order.state != "cancelled"
            ]
            if messages:
                _sender().call(messages)
            waiting.extend(map(start_or_cancel_inner, inner))  # what began before an error is handed over, too
            waiting.extend(tell_outer_of(order.flow_id) for order in ended)
        except Exception as error:  # noqa: BLE001 - an edge of the platform: what was recorded stands, come what may
            log.warning("flow.send_failed", steps=len(ready), error=str(error), then="the sweeper sends them")


@dataclass(frozen=True, slots=True)
class _Message:
    """What is published for a released step."""

    task: str
    wire: dict[str, Any]
    options: dict[str, Any]


@lru_cache(maxsize=1)
def _sender() -> GroupCommitter[list[_Message], None]:
    """Return what sends the messages of many threads together."""
    return GroupCommitter(_send_all)


def _send_all(calls: Sequence[list[_Message]]) -> list[None]:
    """
    Send messages in few calls to the broker.

    Raises:
        kombu.exceptions.KombuError: The broker is away; some may have been sent.
    """
    app = current_app()
    messages = sorted(chain.from_iterable(calls), key=lambda each: (each.options["root_id"], each.task))
    with collect_duplicates(), publishing_many() as publish:
        for each in messages:
            found: Any = app.tasks.get(each.task)
            if isinstance(found, PlatformTask):
                publish(found, each.wire, each.options)
            else:
                app.send_task(each.task, (), each.wire, declare=(), **each.options)
    return [None] * len(calls)


def _message_of(order: Order, parent_id: str | None) -> _Message:
    """Take the payload as it was stored: a worker checks it, and buries what does not fit any more."""
    name, wire = order.task or "", order.payload or {}
    found: Any = current_app().tasks.get(name)
    shown = found.payload.mask(wire) if isinstance(found, PlatformTask) else dict.fromkeys(wire, "***")
    wanted: dict[str, Any] = {"dedup_key": f"flow:{order.run_id}"}
    if "priority" in order.options:
        wanted["priority"] = order.options["priority"]
    ref = StepRef(order.flow_id, order.seq, order.generation)
    wanted["headers"] = {FLOW_HEADER: ref.to_header()}
    options = message_options(shown, wanted)
    options |= {"task_id": order.run_id, "root_id": str(order.flow_id), "parent_id": parent_id}
    options["queue"] = order.options.get("queue")
    return _Message(name, wire, options)


def _deadline_of(order: Order, deadline_at: datetime) -> _Message:
    """A delayed task looks at the deadline when it is due; when the broker loses it, the sweeper looks."""
    seq = None if order.seq == WHOLE else order.seq
    wire = CheckDeadline(flow_id=order.flow_id, seq=seq).to_wire()
    wanted: dict[str, Any] = {
        "dedup_key": f"flow-deadline:{order.flow_id}:{order.seq}:{deadline_at.timestamp()}",
        "countdown": max((deadline_at - utc_now()).total_seconds(), 0.0),
    }
    options = message_options(wire, wanted)
    return _Message(CHECK_DEADLINE, wire, options | {"root_id": str(order.flow_id), "queue": MAINTENANCE.name})


def _parent() -> str | None:
    """Return the run that releases steps here; None: no task does."""
    running: Any = current_task
    return str(running.request.id) if running else None


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
