"""What people and other programs do to flows: cancel, resume, retry, skip, signal; and what a redrive does."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json
from sqlalchemy import select
from sqlmodel import Session, col

from taskyard.database.engine import open_session
from taskyard.flows.models import MAX_REASON, FlowRow, StepRow
from taskyard.flows.release.handover import hand_over
from taskyard.flows.rules import machine, repair
from taskyard.flows.rules.repair import NotPossibleError
from taskyard.flows.states import LIVE_FLOWS, RUNNABLE
from taskyard.flows.step_ref import StepRef
from taskyard.flows.storage.rows import SqlRows
from taskyard.flows.storage.store import FlowStore
from taskyard.history.dead_letters import discard_dead_letters_of
from taskyard.history.operator_log import record_operation
from taskyard.history.writer.truncation import clip

SETTLING = ("flows resume", "flows retry-step", "flows skip")  # what failed needs no redrive after these
BATCH = 500  # dead letters of one statement
SIGNAL_BYTES = 65_536  # of a signal's value as JSON

type Action = Callable[[SqlRows, datetime], None]


def cancel_flow(flow_id: UUID, reason: str, *, by_operator: bool = True) -> None:
    """
    Cancel a running flow: nothing new begins, what succeeded is undone, failure steps run.

    Raises:
        NotPossibleError: It has ended, or is ending.
        LookupError: There is no such flow.
    """

    def act(rows: SqlRows, now: datetime) -> None:
        if rows.flow.state != "running":
            raise NotPossibleError(f"flow {flow_id} is {rows.flow.state}; only a running one is cancelled")
        machine.end(rows, "cancelled", reason or "cancelled", now)

    _steer(flow_id, "flows cancel" if by_operator else None, "", reason, act)


def resume_flow(flow_id: UUID, reason: str = "") -> list[str]:
    """
    Run a failed, compensated or cancelled flow on; return the names of the steps that will run.

    Raises:
        NotPossibleError: It runs, or has succeeded: of two operators one resumes.
        LookupError: There is no such flow.
    """
    names = list[str]()
    _steer(flow_id, "flows resume", "", reason, lambda rows, now: names.extend(repair.resume(rows, now)))
    return names


def retry_flow_step(flow_id: UUID, name: str, reason: str = "") -> list[str]:
    """
    Run a failed step again; a flow that ended by it is resumed. Return the names of the steps that will run.

    Raises:
        NotPossibleError: The step has not failed.
        LookupError: There is no such flow or step.
    """
    names = list[str]()
    act: Action = lambda rows, now: names.extend(repair.retry_step(rows, rows.named(name), now))  # noqa: E731 - as its siblings
    _steer(flow_id, "flows retry-step", name, reason, act)
    return names


def skip_flow_step(flow_id: UUID, name: str, reason: str) -> None:
    """
    Take a step as done without running it; a flow that has ended is resumed after that, by :func:`resume_flow`.

    Raises:
        NotPossibleError: The step is being run, or was done.
        LookupError: There is no such flow or step.
    """

    def act(rows: SqlRows, now: datetime) -> None:
        step = rows.named(name)
        if step.role != "step" or step.state in {"running", "succeeded", "compensated", "skipped"}:
            raise NotPossibleError(f"step {name!r} is {step.state}; it is skipped before it runs, or when it failed")
        if rows.flow.state in {"compensating", "succeeded"}:
            raise NotPossibleError(f"flow {flow_id} is {rows.flow.state}")
        machine.skip(rows, step, f"skipped: {reason}", now)

    _steer(flow_id, "flows skip", name, reason, act)


def approve_step(flow_id: UUID, name: str, value: Any = None, reason: str = "") -> None:
    """
    Approve a step that waits for an approval or an event.

    Raises:
        NotPossibleError: It waits for no approval any more.
        LookupError: There is no such flow or step.
    """

    def act(rows: SqlRows, now: datetime) -> None:
        step = rows.named(name)
        if step.kind != "event":
            raise NotPossibleError(f"step {name!r} waits for no approval")
        if rows.flow.state != "running" or step.state not in {"blocked", "waiting"}:
            raise NotPossibleError(
                f"step {name!r} waits for no approval any more: it is {step.state}, and its flow is {rows.flow.state}"
            )
        _signal(rows, step, value, now)

    _steer(flow_id, "flows approve", name, reason, act)


def signal_flow(event: str, key: str = "", value: Any = None) -> int:
    """
    Tell all running flows that wait for this event and key that it happened; return how many steps were told.

    One that comes before a flow waits for it is kept by its step. Telling twice is harmless: the first value stays.

    Raises:
        ValueError: The value is no JSON, or too large.
    """
    _check_value(value)
    with open_session() as session:
        query = (
            select(col(StepRow.flow_id), col(StepRow.seq))
            .join(FlowRow, col(FlowRow.id) == col(StepRow.flow_id))
            .where(
                col(StepRow.event) == f"{event}:{key}",
                col(StepRow.state).in_(("blocked", "waiting")),
                col(FlowRow.state) == "running",
            )
        )
        found = session.execute(query).all()
    told = 0
    for flow_id, seq in found:
        told += _tell(flow_id, seq, value)
    return told


def on_redriven(store: FlowStore, ref: StepRef, fields: dict[str, Any]) -> str | None:
    """A dead letter of a step was redriven, maybe with other fields: the step is retried, by a run of its own."""

    def act(rows: SqlRows, now: datetime, _session: Session) -> None:
        step = rows.step(ref.seq)
        repair.retry_step(rows, step, now)
        step.payload = fields

    try:
        hand_over(store.change(ref.flow_id, act))
    except (NotPossibleError, LookupError) as error:
        return str(error)
    return "the step is retried"


def run_was_cancelled(run_id: str, by: str, reason: str) -> None:
    """An operator cancelled a run before it was begun: if it was the run of a step, the step has failed."""
    with open_session() as session:
        step = session.scalars(select(StepRow).where(col(StepRow.run_id) == run_id)).first()
    if step is not None:
        ref = StepRef(step.flow_id, step.seq, step.generation)
        step_failed_outside(ref, f"its run was cancelled by {by}: {reason}")


def step_failed_outside(ref: StepRef, error: str) -> None:
    """A run of a step failed where no handler could say so: its time limit passed, its workers died, ..."""

    def act(rows: SqlRows, now: datetime, _session: Session) -> None:
        step = rows.step(ref.seq)
        if step.generation == ref.generation and step.state in RUNNABLE:
            machine.fail(rows, step, clip(error, MAX_REASON), now)

    try:
        hand_over(FlowStore(open_session).change(ref.flow_id, act))
    except LookupError:  # its flow was pruned
        return


def _tell(flow_id: UUID, seq: int, value: Any) -> int:
    told = 0

    def act(rows: SqlRows, now: datetime, _session: Session) -> None:
        nonlocal told
        step = rows.step(seq)
        if rows.flow.state == "running" and step.state in {"blocked", "waiting"}:
            _signal(rows, step, value, now)
            told = 1

    hand_over(FlowStore(open_session).change(flow_id, act))
    return told


def _signal(rows: SqlRows, step: StepRow, value: Any, now: datetime) -> None:
    if step.state == "waiting":
        machine.succeed(rows, step, value, now)
    elif step.options.get("signal") is None:
        step.options = {**step.options, "signal": {"value": value}}


def _check_value(value: Any) -> None:
    try:
        size = len(to_json(value))
    except PydanticSerializationError as error:
        raise ValueError(f"the signal's value is no JSON: {error}") from error
    if size > SIGNAL_BYTES:
        raise ValueError(f"the signal's value has {size} bytes, at most {SIGNAL_BYTES} are kept")


def _steer(flow_id: UUID, verb: str | None, target: str, reason: str, action: Action) -> None:
    def act(rows: SqlRows, now: datetime, session: Session) -> None:
        failed = (
            {} if verb not in SETTLING else {step.seq: step.run_id for step in rows.all_steps() if _is_failed(step)}
        )
        action(rows, now)
        if verb is not None:
            facts = {"step": target} if target else None
            row = record_operation(session, verb, str(flow_id), reason=reason, facts=facts)
            settled = [run_id for seq, run_id in failed.items() if run_id and not _is_failed(rows.step(seq))]
            for begin in range(0, len(settled), BATCH):
                some = settled[begin : begin + BATCH]
                discard_dead_letters_of(session, some, by=row.who, reason=f"{verb}: {reason}".rstrip(": "))

    hand_over(FlowStore(open_session).change(flow_id, act))


def _is_failed(step: StepRow) -> bool:
    return step.state == "failed"


def is_live(flow: FlowRow) -> bool:
    """Whether something of it may still run."""
    return flow.state in LIVE_FLOWS
