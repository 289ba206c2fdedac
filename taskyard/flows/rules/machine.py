"""
The state machine of flows: what follows from one outcome. It decides everything, and touches no server.

It reads and changes rows that it is handed. The caller holds the flow's lock, and writes what changed in one
transaction.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import ENDED_FLOWS, OPEN_STEPS, RUNNABLE
from taskyard.flows.step_ref import StepRef

LOOK_AFTER = timedelta(seconds=30)  # a step without a message is found by the sweeper so long after it was due


class Rows(Protocol):
    """The rows of one flow, loaded as far as they are asked for."""

    flow: FlowRow
    released: list[StepRow]  # what is to be handed over after the commit: tasks, inner flows, deadlines

    def step(self, seq: int) -> StepRow:
        """Return the step at this place."""

    def children(self, seq: int) -> Sequence[tuple[StepRow, str]]:
        """Return the steps that wait for this one, each with what its failure means to them."""

    def blocked_members(self, group: StepRow, count: int) -> Sequence[StepRow]:
        """Return the next blocked members of a group, from `group.next_member` on."""

    def guards(self) -> Sequence[StepRow]:
        """Return undo and failure steps in order."""

    def cancel_open(self, now: datetime) -> None:
        """Cancel all ordinary steps that did not begin or wait: blocked, queued, waiting."""

    def count_open_members(self, group: StepRow) -> int:
        """Count the members of a group that have not ended."""

    def all_steps(self) -> Sequence[StepRow]:
        """Return all steps in order; for what happens seldom."""

    def edges(self) -> Sequence[tuple[int, int, str]]:
        """Return all edges: parent, child, and what the parent's failure means."""

    def cancel_blocked_members(self, group: StepRow, now: datetime) -> int:
        """Cancel a group's members that were not released; return how many."""

    def is_any_running(self) -> bool:
        """Whether an ordinary task of the flow is being run."""


def release(rows: Rows, step: StepRow, now: datetime) -> None:
    """Let a step begin: everything that it waited for is there."""
    step.generation += 1
    step.attempts = step.polls = 0
    step.error = step.result = step.finished_at = None
    step.started_at, step.is_counted = None, False
    step.deadline_at = now + timedelta(seconds=step.deadline_seconds) if step.deadline_seconds is not None else None
    if step.kind == "task":
        step.state, step.run_id = "queued", StepRef(step.flow_id, step.seq, step.generation).run_id()
        step.check_at = _earlier(now + LOOK_AFTER, step.deadline_at)
        rows.released.append(step)
        return
    step.state, step.started_at, step.check_at = "waiting", now, step.deadline_at
    if step.kind == "flow" or step.deadline_at is not None:
        rows.released.append(step)
    if step.kind == "group":
        step.waits_for = rows.count_open_members(step)
        _release_members(rows, step, now)
    elif step.kind == "flow":
        step.check_at = now  # the sweeper looks soon, if whoever starts the inner flow now dies
    elif (step.options or {}).get("signal") is not None:  # it came before somebody waited for it
        succeed(rows, step, step.options["signal"]["value"], now)


def succeed(rows: Rows, step: StepRow, result: Any, now: datetime) -> None:
    """The step did its work."""
    was_open = step.state in OPEN_STEPS
    _end_step(step, "succeeded", now)
    step.result, step.error = result, None
    if step.role == "undo" and step.target_seq is not None:
        rows.step(step.target_seq).state = "compensated"
    if rows.flow.ending is not None or step.role != "step":
        go_on_ending(rows, now)
        return
    if was_open:
        rows.flow.open_steps -= 1
        _tell_children(rows, step, now)
    check_success(rows, now)


def fail(rows: Rows, step: StepRow, error: str, now: datetime) -> None:
    """The step failed for good."""
    _end_step(step, "failed", now)
    step.error = error
    flow = rows.flow
    if flow.ending is not None or step.role != "step":
        go_on_ending(rows, now)
        return
    children = rows.children(step.seq)
    if _is_fatal(rows, step, [policy for _, policy in children]):
        end(rows, "failed", f"step {step.name!r} failed: {error}", now)
        return
    flow.open_steps -= 1 + _cancel_unbegun(rows, step, now)
    step.is_counted = True
    for child, policy in children:
        _parent_ended(rows, child, now, at_once=policy == "continue")
    if step.group_seq is not None:
        _member_ended(rows, rows.step(step.group_seq), step, now)
    check_success(rows, now)


def skip(rows: Rows, step: StepRow, reason: str, now: datetime) -> None:
    """An operator says that the work of a step is not needed; for its children it has succeeded, without a result."""
    was_open = step.state in OPEN_STEPS
    _end_step(step, "skipped", now)
    step.error = reason
    if rows.flow.ending is None and rows.flow.state == "running":
        if was_open:
            rows.flow.open_steps -= 1 + _cancel_unbegun(rows, step, now)
        _tell_children(rows, step, now)
        check_success(rows, now)


def end(rows: Rows, ending: str, reason: str, now: datetime) -> None:
    """Let the flow fail, or cancel it: nothing new begins, then what was done is undone, then failure steps run."""
    flow = rows.flow
    if flow.ending is not None or flow.state != "running":
        return
    flow.ending, flow.reason, flow.state = ending, reason, "compensating"
    rows.cancel_open(now)
    go_on_ending(rows, now)


def go_on_ending(rows: Rows, now: datetime) -> None:
    """Take the next step back, or run the next failure step, or end the flow; waits for what is being run."""
    flow = rows.flow
    if flow.ending is None or rows.is_any_running():
        return
    guards = rows.guards()
    if any(guard.state in RUNNABLE for guard in guards):
        return
    following = _next_guard(rows, guards)
    if following is not None:
        flow.state, flow.finished_at = "compensating", None
        release(rows, following, now)
        return
    undone = [guard for guard in guards if guard.role == "undo" and guard.state in {"succeeded", "failed"}]
    if flow.ending == "cancelled":
        flow.state = "cancelled"
    else:
        flow.state = "compensated" if undone and all(each.state == "succeeded" for each in undone) else "failed"
    _close(flow, now)


def settle_late(rows: Rows, step: StepRow, result: Any, now: datetime) -> None:
    """A step that was given up has done its work after all: what can be taken back is."""
    _end_step(step, "succeeded", now)
    step.result = result
    if rows.flow.ending is not None:
        go_on_ending(rows, now)


def give_up(rows: Rows, step: StepRow, error: str, now: datetime) -> None:
    """It wanted to come back, but its flow ends: there is no next attempt."""
    _end_step(step, "cancelled", now)
    step.error = error
    go_on_ending(rows, now)


def wait_for_next(step: StepRow, due: datetime, *, is_poll: bool, note: str) -> None:
    """It comes back: after a failed attempt, or because what it waits for is not there yet."""
    step.state, step.error = ("waiting" if is_poll else "queued"), note
    step.polls += int(is_poll)
    step.check_at = _earlier(due + LOOK_AFTER, step.deadline_at)


def _next_guard(rows: Rows, guards: Sequence[StepRow]) -> StepRow | None:
    undos = [guard for guard in guards if guard.role == "undo" and guard.state == "blocked"]
    targets = [(rows.step(guard.target_seq), guard) for guard in undos if guard.target_seq is not None]
    done = [(target, guard) for target, guard in targets if needs_undo(target)]
    if done:
        return max(done, key=lambda pair: (_finish_of(pair[0]), pair[0].seq))[1]
    return next((guard for guard in guards if guard.role == "failure" and guard.state == "blocked"), None)


def needs_undo(step: StepRow) -> bool:
    """Whether its work was done, or may have been: it was being run when its worker was lost."""
    return step.state == "succeeded" or (step.state == "cancelled" and step.error == INTERRUPTED)


INTERRUPTED = "interrupted: whether it did its work is not known"


def _finish_of(step: StepRow) -> float:
    return step.finished_at.timestamp() if step.finished_at else 0.0


def _is_fatal(rows: Rows, step: StepRow, policies: Sequence[str]) -> bool:
    if step.is_cleanup:
        return False
    if step.group_seq is not None:
        return rows.step(step.group_seq).if_failed == "fail" and _is_group_fatal(rows, step.group_seq)
    return not policies or "fail" in policies


def _is_group_fatal(rows: Rows, group_seq: int) -> bool:
    group = rows.step(group_seq)
    policies = [policy for _, policy in rows.children(group_seq)]
    return not group.is_cleanup and (not policies or "fail" in policies)


def _cancel_unbegun(rows: Rows, step: StepRow, now: datetime) -> int:
    """Cancel the members of a group that ends before they began; return how many."""
    return rows.cancel_blocked_members(step, now) if step.kind == "group" else 0


def _tell_children(rows: Rows, step: StepRow, now: datetime) -> None:
    if step.is_counted:
        return
    step.is_counted = True
    for child, _ in rows.children(step.seq):
        _parent_ended(rows, child, now)
    if step.group_seq is not None:
        _member_ended(rows, rows.step(step.group_seq), step, now)


def _parent_ended(rows: Rows, child: StepRow, now: datetime, *, at_once: bool = False) -> None:
    child.waits_for -= 1
    if child.state == "blocked" and (at_once or child.waits_for <= 0) and rows.flow.state == "running":
        release(rows, child, now)


def _member_ended(rows: Rows, group: StepRow, member: StepRow, now: datetime) -> None:
    group.waits_for -= 1
    if group.state != "waiting":  # it has ended before its members
        return
    if member.state == "failed":
        if group.if_failed == "fail" and not member.is_cleanup:
            fail(rows, group, f"member {member.name!r} failed: {member.error}", now)
            return
        if group.if_failed == "continue" and not group.is_counted:
            _tell_children(rows, group, now)
    if group.waits_for <= 0:
        succeed(rows, group, None, now)
    else:
        _release_members(rows, group, now, count=1)


def _release_members(rows: Rows, group: StepRow, now: datetime, count: int | None = None) -> None:
    if group.waits_for <= 0:
        succeed(rows, group, None, now)
        return
    if group.next_member is None:
        return
    wanted = int((group.options or {}).get("at_once", 1)) if count is None else count
    members = rows.blocked_members(group, wanted)
    for member in members:
        release(rows, member, now)
    group.next_member = members[-1].seq + 1 if len(members) == wanted else None


def check_success(rows: Rows, now: datetime) -> None:
    """End a flow that has nothing left to do."""
    flow = rows.flow
    if flow.state != "running" or flow.open_steps > 0:
        return
    flow.state = "succeeded"
    if flow.guards:
        for guard in rows.guards():
            _end_step(guard, "skipped", now)
    _close(flow, now)


def _close(flow: FlowRow, now: datetime) -> None:
    flow.finished_at, flow.check_at = now, None
    if flow.parent_id is not None:
        flow.check_at = now  # until the flow that waits for it has heard of it


def _end_step(step: StepRow, state: str, now: datetime) -> None:
    step.state, step.finished_at, step.check_at = state, now, None


def _earlier(moment: datetime, other: datetime | None) -> datetime:
    return moment if other is None else min(moment, other)


def is_over(flow: FlowRow) -> bool:
    """Whether it has ended."""
    return flow.state in ENDED_FLOWS
