"""Make steps of a Celery canvas: chains one after the other, groups side by side, a chord's body after its header."""

from collections.abc import Sequence
from typing import Any, Protocol

from celery.canvas import Signature, _chain, chord, group, maybe_signature

from taskyard.flows.plan import FlowDefinitionError, FlowPlan
from taskyard.tasks.current_app import current_app
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.sending import find_task

CARRIED = frozenset({"priority"})  # options of a signature that a step has as well
IGNORED = frozenset({"queue", "task_id", "reply_to", "root_id", "parent_id", "group_id", "group_index"})  # of Celery
SMALLEST_GROUP = 2  # members of one task that become a group of the flow


class StepsOfCanvas(Protocol):
    """The flow that is being written; see :class:`taskyard.flows.definition.flow.Flow`."""

    plan: FlowPlan

    def step(
        self, name: str, task: Any, payload: Any, *, after: Sequence[str] = (), priority: str | int | None = None
    ) -> object:
        """Add a step."""

    def fan_out(self, name: str, task: Any, payloads: Sequence[Any], *, after: Sequence[str] = ()) -> object:
        """Add a group."""


def add_canvas(flow: StepsOfCanvas, canvas: Any) -> None:
    """
    Add the steps of a canvas to an empty flow.

    Raises:
        FlowDefinitionError: A part of it cannot be a step.
    """
    try:
        _add(flow, _signature(canvas), [])
    except RecursionError:
        raise FlowDefinitionError("the canvas is nested too deep to be a flow") from None


def _add(flow: StepsOfCanvas, part: Signature[Any], after: Sequence[str]) -> list[str]:
    """Add a part after these steps; return the names of the steps that it ends with."""
    parts: Any = part
    if isinstance(part, _chain):
        last = list(after)
        for each in parts.tasks:
            last = _add(flow, _signature(each), last)
        return last
    if isinstance(part, chord):
        header = _add_group(flow, [_signature(each) for each in _members(parts.tasks)], after)
        return _add(flow, _signature(parts.body), header)
    if isinstance(part, group):
        return _add_group(flow, [_signature(each) for each in parts.tasks], after)
    return [_add_step(flow, part, after)]


def _add_group(flow: StepsOfCanvas, members: Sequence[Signature[Any]], after: Sequence[str]) -> list[str]:
    if not members:
        return list(after)
    tasks = {_task_name(member) for member in members}
    if len(members) >= SMALLEST_GROUP and len(tasks) == 1 and None not in tasks and not any(map(_carried, members)):
        task: Any = find_task(str(_task_name(members[0])))
        name = _new_name(flow, task.name)
        flow.fan_out(name, task, [_payload(member) for member in members], after=after)
        return [name]
    return [name for member in members for name in _add(flow, member, after)]


def _add_step(flow: StepsOfCanvas, signature: Signature[Any], after: Sequence[str]) -> str:
    payload = _payload(signature)
    task: Any = find_task(str(_task_name(signature)))
    name = _new_name(flow, task.name)
    flow.step(name, task, payload, after=after, priority=_carried(signature).get("priority"))
    return name


def _payload(signature: Signature[Any]) -> Payload:
    facts: Any = signature
    name = str(facts.get("task"))
    options = {option for option, value in (facts.get("options") or {}).items() if value is not None}
    if not facts.get("immutable"):
        raise FlowDefinitionError(f"{name}: use .si() instead of .s(): a step reads results by name, with result_of")
    if extra := sorted(options - CARRIED - IGNORED):
        raise FlowDefinitionError(f"{name}: a step of a flow has no {', '.join(extra)}; write the flow with Flow.step")
    try:
        declared = find_task(name)
        if facts.get("args"):
            raise FlowDefinitionError(f"{name}: give the payload's fields by keyword")
        return declared.payload.from_wire(facts.get("kwargs") or {})
    except (InvalidPayloadError, UnknownTaskError) as error:
        raise FlowDefinitionError(f"{name}: {error}") from error


def _carried(signature: Signature[Any]) -> dict[str, Any]:
    facts: Any = signature
    return {name: value for name, value in (facts.get("options") or {}).items() if name in CARRIED}


def _task_name(signature: Signature[Any]) -> str | None:
    """The task of a plain signature; None for a chain, a group or a chord."""
    facts: Any = signature
    return None if isinstance(signature, _chain | chord | group) else str(facts.get("task"))


def _new_name(flow: StepsOfCanvas, task: str) -> str:
    return f"{task}-{sum(step.group is None for step in flow.plan.steps) + 1}"


def _members(header: Any) -> Sequence[Any]:
    return list(header.tasks) if isinstance(header, group) else list(header)


def _signature(part: Any) -> Signature[Any]:
    if not isinstance(part, dict):  # so are signatures
        raise FlowDefinitionError(f"{str(part)[:80]!r}: a canvas is made of chain, group, chord and signatures")
    found: Any = maybe_signature(part, app=current_app())
    signature: Signature[Any] = found
    return signature
