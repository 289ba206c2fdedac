"""What an operator may do to a flow, as transitions: resume it, retry a step, and what follows from that."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.rules import machine
from taskyard.flows.rules.machine import Rows

RESUMABLE = ("failed", "compensated", "cancelled")
DONE = ("succeeded", "skipped")


class NotPossibleError(ValueError):
    """The flow or step is in a state in which this has no meaning; the text says which, and nothing was changed."""


def resume(rows: Rows, now: datetime) -> list[str]:
    """
    Run a flow on that failed or was cancelled; return the names of the steps that will run.

    What succeeded stays, unless it was taken back or builds on something that was.

    Raises:
        NotPossibleError: It runs, or has succeeded.
    """
    flow = rows.flow
    if flow.state not in RESUMABLE:
        raise NotPossibleError(f"flow {flow.id} is {flow.state}; only a failed, compensated or cancelled one resumes")
    steps = {step.seq: step for step in rows.all_steps()}
    again = _to_run_again(rows, steps)
    for seq in again:
        _reset(steps[seq])
    for guard in rows.guards():
        _reset(guard)
    reopen(flow, now)
    ordinary = [step for step in steps.values() if step.role == "step"]
    flow.open_steps = sum(step.state == "blocked" for step in ordinary)
    parents, at_once = _open_parents(rows, steps)
    ready = []
    for seq in again:
        step = steps[seq]
        step.waits_for = parents[seq]
        if step.kind == "group":
            step.next_member = (step.options or {}).get("first")
        if step.group_seq is None and (not step.waits_for or seq in at_once):
            ready.append(step)
    for step in ready:
        machine.release(rows, step, now)
    machine.check_success(rows, now)
    return [steps[seq].name for seq in sorted(again)]


def retry_step(rows: Rows, step: StepRow, now: datetime) -> list[str]:
    """
    Run a failed step again; a flow that ended because of it is resumed. Return the names of the steps that will run.

    Raises:
        NotPossibleError: The step has not failed, or its flow is being compensated.
    """
    flow = rows.flow
    if step.state != "failed":
        raise NotPossibleError(f"step {step.name!r} is {step.state}; only a failed step is retried")
    if flow.state == "compensating":
        raise NotPossibleError(f"flow {flow.id} is being compensated; retry when it has ended")
    if step.role != "step":
        machine.release(rows, step, now)
        flow.state, flow.finished_at = "compensating", None
    elif flow.state in RESUMABLE:
        return resume(rows, now)
    else:  # its failure was ignored: its children know it, and will not be told again
        flow.state, flow.finished_at = "running", None
        flow.open_steps += 1
        machine.release(rows, step, now)
        step.is_counted = True
    return [step.name]


def reopen(flow: FlowRow, now: datetime) -> None:
    """Let a flow run again, with its whole time."""
    flow.state, flow.ending, flow.reason = "running", None, None
    flow.started_at, flow.finished_at, flow.check_at = now, None, None
    if flow.deadline_seconds is not None:
        flow.check_at = now + timedelta(seconds=flow.deadline_seconds)


def _to_run_again(rows: Rows, steps: dict[int, StepRow]) -> set[int]:
    half_undone = {
        guard.target_seq for guard in rows.guards() if guard.role == "undo" and guard.state in {"failed", "succeeded"}
    }
    first = {step.seq for step in steps.values() if step.role == "step" and _must_run(step, half_undone)}
    rerun = {seq for seq in first if steps[seq].seq in half_undone}
    return first | _below(rows, steps, rerun) | {group for seq in first if (group := steps[seq].group_seq) is not None}


def _must_run(step: StepRow, half_undone: set[int | None]) -> bool:
    if step.state in {"cancelled", "compensated"} or step.seq in half_undone:
        return True
    return step.state == "failed" and not step.is_counted


def _below(rows: Rows, steps: dict[int, StepRow], start: Iterable[int]) -> set[int]:
    """All that builds on these steps and was not skipped."""
    children = defaultdict[int, list[int]](list)
    for parent, child, _ in rows.edges():
        children[parent].append(child)
    members = defaultdict[int, list[int]](list)
    for step in steps.values():
        if step.group_seq is not None:
            members[step.group_seq].append(step.seq)
    found, waiting = set[int](), list(start)
    while waiting:
        seq = waiting.pop()
        following = list(children[seq])
        following += [each for child in children[seq] for each in members[child]]
        group = steps[seq].group_seq
        if group is not None:
            following.append(group)
        fresh = [each for each in following if each not in found and steps[each].state != "skipped"]
        found.update(fresh)
        waiting += fresh
    return found


def _reset(step: StepRow) -> None:
    step.state = "blocked"
    step.is_counted = False
    step.check_at = step.finished_at = step.deadline_at = None
    step.error = step.result = None


def _open_parents(rows: Rows, steps: dict[int, StepRow]) -> tuple[dict[int, int], set[int]]:
    """Return how many parents each step waits for, and which steps wait for none of them any more."""
    counts, at_once = defaultdict[int, int](int), set[int]()
    for parent, child, policy in rows.edges():
        is_ignored = steps[parent].state == "failed" and steps[parent].is_counted
        if is_ignored and policy == "continue":
            at_once.add(child)
        if not is_ignored and steps[parent].state not in DONE:
            counts[child] += 1
    return counts, at_once
