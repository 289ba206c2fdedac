"""What a handler of a step can ask for: results of other steps by name, and more steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from sqlalchemy import select
from sqlmodel import col

from taskyard.database.engine import open_session
from taskyard.flows.definition.flow import Flow
from taskyard.flows.models import StepRow
from taskyard.flows.step_ref import StepRef
from taskyard.tasks.errors import PermanentError, Snooze

PAGE = 500  # members of a group that are in memory at a time


class NoResultError(PermanentError):
    """There is no such result; the text says why."""


class NotInFlowError(RuntimeError):
    """The task that runs is no step of a flow."""


class Pending(Snooze):
    """What the step waits for is not there yet: it looks again as its `Poll` says, and no attempt is used."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(timedelta(0), reason)
        self.args = (reason,)  # so that it survives pickling


@dataclass(slots=True)
class CurrentStep:
    """The step that runs, for its handler."""

    ref: StepRef
    name: str
    additions: Flow | None = None
    known: dict[str, Any] = field(default_factory=dict)


_current: ContextVar[CurrentStep | None] = ContextVar("taskyard_flow_step", default=None)


@contextmanager
def as_current(step: CurrentStep) -> Iterator[None]:
    """Let this be the step that runs while the block does."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def current_step() -> CurrentStep:
    """
    Return the step that runs.

    Raises:
        NotInFlowError: The task is no step of a flow.
    """
    step = _current.get()
    if step is None:
        raise NotInFlowError("the task that runs is no step of a flow")
    return step


def result_of[T](name: str, kind: type[T]) -> T:
    """
    Return the result of an earlier step of this flow, by its name, as a value of this type.

    Raises:
        NoResultError: There is no such step, it did not succeed, or its result is no such value.
        NotInFlowError: The task that runs is no step of a flow.
    """
    row = _find(name)
    if row.state not in {"succeeded", "compensated"}:
        raise NoResultError(f"step {name!r} is {row.state}, so it has no result; is it named in `after`?")
    return _read(name, row.result, kind)


def results_of[T](name: str, kind: type[T]) -> Iterator[tuple[int, T]]:
    """Yield the results of a group's members that succeeded, each with the member's number; a page is in memory."""
    for number, row in _members(name, "succeeded"):
        yield number, _read(row.name, row.result, kind)


def failures_of(name: str) -> dict[str, str]:
    """
    Return the names and errors of what failed without failing the flow: a step, or members of a group.

    Nothing is told of what was declared with ``drop``.
    """
    row = _find(name)
    if row.kind != "group":
        return {row.name: row.error or ""} if row.state == "failed" else {}
    if row.if_failed == "drop":
        return {}
    return {member.name: member.error or "" for _, member in _members(name, "failed")}


def add_steps() -> Flow:
    """
    Return a definition to which the running step adds steps: they run when it succeeds, and its children wait for them.

    They are stored with the step's success, in one transaction: an execution that fails adds nothing.
    """
    step = current_step()
    if step.additions is None:
        step.additions = Flow(f"more.{step.name}" if step.name[0].isalnum() else "more")
    return step.additions


def _find(name: str) -> StepRow:
    flow_id = current_step().ref.flow_id
    with open_session() as session:
        query = select(StepRow).where(col(StepRow.flow_id) == flow_id, col(StepRow.name) == name)
        row = session.scalars(query).one_or_none()
    if row is None:
        raise NoResultError(f"the flow has no step called {name!r}")
    return row


def _members(name: str, state: str) -> Iterator[tuple[int, StepRow]]:
    group = _find(name)
    if group.kind != "group":
        raise NoResultError(f"step {name!r} is no group; use result_of")
    after = -1
    while True:
        with open_session() as session:
            query = select(StepRow).where(
                col(StepRow.flow_id) == group.flow_id,
                col(StepRow.group_seq) == group.seq,
                col(StepRow.state) == state,
                col(StepRow.seq) > after,
            )
            rows = session.scalars(query.order_by(col(StepRow.seq)).limit(PAGE)).all()
        for row in rows:
            yield int(row.name.rpartition("[")[2][:-1]), row
        if len(rows) < PAGE:
            return
        after = rows[-1].seq


def _read[T](name: str, value: Any, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_json(to_json(value))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "it"
        raise NoResultError(f"the result of step {name!r} is no {kind.__name__}: {place}: {fault['msg']}") from None
