"""What a flow's definition becomes: plain facts that fit into rows, and into the payload of a sub-flow's step."""

import re
from collections import Counter, defaultdict
from typing import Annotated, Any

from pydantic import BaseModel, Field

from taskyard.flows.states import IfFailed, Kind, Role

MOST_STEPS = 50_000  # of a flow, members of groups included
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class FlowDefinitionError(ValueError):
    """The flow cannot be as it was written; the text says what is wrong, and nothing was written."""


class PlannedStep(BaseModel):
    """One step."""

    name: str
    role: Role = "step"
    kind: Kind = "task"
    task: str | None = None
    payload: Any = None
    options: dict[str, Any] = Field(default_factory=dict)
    group: str | None = None  # name of the group that it is a member of
    target: str | None = None  # of an undo: name of the step that it takes back
    if_failed: IfFailed = "fail"
    is_cleanup: bool = False
    deadline_seconds: float | None = None


class FlowPlan(BaseModel):
    """A whole flow."""

    name: str
    key: str | None = None
    deadline_seconds: float | None = None
    steps: list[PlannedStep] = Field(default_factory=list)
    edges: Annotated[list[tuple[str, str, IfFailed]], Field(default_factory=list)]  # parent, child


def check_name(what: str, name: str) -> str:
    """
    Return a name that can be one.

    Raises:
        FlowDefinitionError: It cannot.
    """
    given: Any = name
    if not isinstance(given, str) or not NAME.fullmatch(given):
        raise FlowDefinitionError(
            f"{what} {str(name)[:80]!r}: use 1-200 letters, digits, '_', '.' and '-', not these first"
        )
    return name


def check_plan(plan: FlowPlan) -> None:
    """
    Look at the graph as a whole.

    Raises:
        FlowDefinitionError: It has no step, too many, two of one name, an edge to nowhere, or a cycle.
    """
    if len(plan.steps) > MOST_STEPS:
        raise FlowDefinitionError(f"flow {plan.name!r} has more than {MOST_STEPS} steps; start several flows")
    names = Counter(step.name for step in plan.steps)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise FlowDefinitionError(f"flow {plan.name!r} has two steps called {twice[0]!r}")
    if not any(step.role == "step" for step in plan.steps):
        raise FlowDefinitionError(f"flow {plan.name!r} has no step")
    for parent, child, _ in plan.edges:
        if parent not in names:
            raise FlowDefinitionError(f"flow {plan.name!r}: {child!r} comes after {parent!r}, which is no step of it")
    doubles = [pair for pair, count in Counter((parent, child) for parent, child, _ in plan.edges).items() if count > 1]
    if doubles:
        parent, child = doubles[0]
        raise FlowDefinitionError(f"flow {plan.name!r}: {child!r} names {parent!r} twice in `after`")
    if cycle := find_cycle(plan):
        raise FlowDefinitionError(f"flow {plan.name!r} has a cycle: {' -> '.join(cycle)}")


def find_cycle(plan: FlowPlan) -> list[str]:
    """Return the names along a cycle, the first one again at its end; empty: there is none."""
    children = defaultdict[str, list[str]](list)
    waits = Counter[str]()
    for parent, child, _ in plan.edges:
        children[parent].append(child)
        waits[child] += 1
    ready = [step.name for step in plan.steps if not waits[step.name]]
    while ready:
        for child in children[ready.pop()]:
            waits[child] -= 1
            if not waits[child]:
                ready.append(child)
    left = {name for name, count in waits.items() if count > 0}
    if not left:
        return []
    parents = {child: parent for parent, child, _ in plan.edges if parent in left and child in left}
    path = [min(parents)]
    while path[-1] not in path[:-1]:
        path.append(parents[path[-1]])
    return path[path.index(path[-1]) :][::-1]
