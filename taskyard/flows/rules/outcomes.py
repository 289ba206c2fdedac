"""How an execution of a step may end, and what its flow makes of it: the first final outcome of a release counts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from taskyard.flows.models import MAX_REASON, StepRow
from taskyard.flows.plan import FlowPlan
from taskyard.flows.rules import machine
from taskyard.flows.rules.machine import Rows
from taskyard.flows.states import RUNNABLE
from taskyard.flows.step_ref import StepRef
from taskyard.history.writer.truncation import clip

DONE = ("succeeded", "skipped", "compensated")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution of a step ended."""

    ref: StepRef
    kind: Literal["succeeded", "failed", "retrying", "pending"]
    result: Any = None
    error: str = ""
    due: datetime | None = None  # of the next attempt or poll
    additions: FlowPlan | None = None  # steps that the handler added


def apply_outcome(
    rows: Rows, outcome: Outcome, now: datetime, grow: Callable[[StepRow, FlowPlan, datetime], None]
) -> bool:
    """
    Let the flow go on; False: there is no next attempt, for the flow does not want it any more.

    An outcome of an earlier release, or of one that has ended, changes nothing; except that a late success of a step
    that was given up is undone.
    """
    ref, step = outcome.ref, rows.step(outcome.ref.seq)
    if step.generation != ref.generation or step.state in DONE:
        return False
    if step.state not in RUNNABLE:
        if outcome.kind == "succeeded":
            machine.settle_late(rows, step, outcome.result, now)
        return False
    error = clip(outcome.error, MAX_REASON)
    match outcome.kind:
        case "succeeded":
            if outcome.additions is not None and rows.flow.state == "running":
                grow(step, outcome.additions, now)
            machine.succeed(rows, step, outcome.result, now)
        case "failed":
            machine.fail(rows, step, error, now)
        case _ if rows.flow.ending is not None and step.role == "step":
            machine.give_up(rows, step, error, now)
            return False
        case _:
            machine.wait_for_next(step, outcome.due or now, is_poll=outcome.kind == "pending", note=error)
    return True
