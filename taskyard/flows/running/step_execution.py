"""Run a step: around its handler, its start and its outcome are recorded, and what follows is handed over."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import structlog
from celery.exceptions import Ignore
from pydantic_core import to_json
from sqlalchemy.exc import OperationalError

from taskyard.broker.protocol.header import HEADER
from taskyard.broker.worker.redelivery import Redeliver
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.flows.plan import check_plan
from taskyard.flows.release.handover import hand_over
from taskyard.flows.rules.outcomes import Outcome
from taskyard.flows.running.current import CurrentStep, Pending, as_current
from taskyard.flows.steering import on_redriven
from taskyard.flows.step_ref import FLOW_HEADER, StepRef
from taskyard.flows.storage.store import FlowAdvance, FlowStore, Start
from taskyard.pools.coroutine_bridge import finish, is_on_loop
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.execution import attempt_number
from taskyard.tasks.platform_task import PlatformTask

RESULT_BYTES = 65_536  # of a step's result as JSON
PATIENCE = timedelta(seconds=60)  # how long the database is waited for with a result in hand
PAUSE = timedelta(seconds=5)  # until a message comes back that could not be begun
DEFAULT_POLL = 15.0  # seconds, of a step that raises Pending without a Poll

log = structlog.stdlib.get_logger(__name__)


class StepDeadlineError(PermanentError):
    """What the step waited for was not there in time."""

    dead_letter_reason = "deadline"


class ResultTooLargeError(PermanentError):
    """The step's result is over its cap."""


@lru_cache(maxsize=1)
def open_store() -> FlowStore:
    """Return the store on this process's database."""
    return FlowStore(open_session)


def run_step(task: PlatformTask, execute: Callable[[], Any]) -> Any:
    """
    Run a task; if its message belongs to a flow, as the step that it is.

    The outcome is in the database before the message is settled, so whatever dies in between finds it there.
    """
    ref = StepRef.read(getattr(task.request, FLOW_HEADER, None))
    if ref is None:
        return execute()
    try:
        start = _aside(lambda: open_store().begin(ref, str(task.request.id), attempt_number(task)))
    except OperationalError as error:  # the database is away: the same attempt comes back
        raise Redeliver(PAUSE.total_seconds(), error, uses_attempt=False) from error
    if start.verdict == "over":
        return _aside(lambda: _leave_alone(task, ref))
    return _run(task, ref, start, execute)


def _run(task: PlatformTask, ref: StepRef, start: Start, execute: Callable[[], Any]) -> Any:
    step = CurrentStep(ref, start.name)
    try:
        with as_current(step):
            value = execute()
        outcome = _success(ref, step, value)
    except Redeliver as again:
        return _come_back(task, ref, start, again)
    except Ignore:
        _record(Outcome(ref, "succeeded"))
        raise
    except Exception as error:
        _record(Outcome(ref, "failed", error=f"{type(error).__name__}: {error}"))
        raise
    _record(outcome)
    return value


def _success(ref: StepRef, step: CurrentStep, value: Any) -> Outcome:
    size = len(to_json(value))
    if size > RESULT_BYTES:
        raise ResultTooLargeError(
            f"the result of step {step.name!r} has {size} bytes, at most {RESULT_BYTES} are kept; "
            "store it and return its id"
        )
    additions = None
    if step.additions is not None:
        check_plan(step.additions.plan)
        additions = step.additions.plan
    return Outcome(ref, "succeeded", value, additions=additions)


def _come_back(task: PlatformTask, ref: StepRef, start: Start, again: Redeliver) -> Any:
    now, delay, kind = utc_now(), timedelta(seconds=again.delay), "retrying"
    if not again.uses_attempt:
        kind = "pending"
        delay, error = _next_look(start, again, now)
        if error is not None:
            _record(Outcome(ref, "failed", error=f"{type(error).__name__}: {error}"))
            raise error from again
    advance = _record(Outcome(ref, kind, error=str(again.exc or ""), due=now + delay))  # type: ignore[arg-type]
    if not advance.goes_on:
        log.info("flow.step_given_up", flow=str(ref.flow_id), step=start.name, task=task.name)
        raise Ignore from again
    raise Redeliver(delay.total_seconds(), _reason(again), uses_attempt=again.uses_attempt) from again


def _next_look(start: Start, again: Redeliver, now: datetime) -> tuple[timedelta, StepDeadlineError | None]:
    """Return how long to wait until the next look, or the error that it is too late for one."""
    poll = start.options.get("poll")
    asked = timedelta(seconds=again.delay)
    if poll is None:
        return (timedelta(seconds=DEFAULT_POLL) if isinstance(again.exc, Pending) else asked), None
    end = (start.started_at or now) + timedelta(seconds=poll["within"])
    if now >= end:
        return asked, StepDeadlineError(f"still pending after {timedelta(seconds=poll['within'])}: {again.exc}")
    pause = timedelta(seconds=min(poll["every"] * poll["growth"] ** min(start.polls, 300), poll["longest"]))
    wanted = pause if isinstance(again.exc, Pending) else max(asked, pause)
    return min(wanted, end - now), None


def _record(outcome: Outcome) -> FlowAdvance:
    return _aside(lambda: _record_patiently(outcome))


def _record_patiently(outcome: Outcome) -> FlowAdvance:
    """
    Record an outcome, and hand over what follows from it.

    Raises:
        Redeliver: The database was away for too long; the step is run again.
    """
    until = utc_now() + PATIENCE
    while True:
        try:
            advance = open_store().record(outcome)
        except OperationalError as error:
            if utc_now() > until:
                raise Redeliver(PAUSE.total_seconds(), error, uses_attempt=False) from error
            log.warning("flow.database_away", flow=str(outcome.ref.flow_id), error=str(error.orig))
            time.sleep(0.5)  # a thread of the pool with a result in hand
        else:
            hand_over(advance.orders)
            return advance


def _leave_alone(task: PlatformTask, ref: StepRef) -> Any:
    """The step has ended or was given up; whoever recorded that may have died before it sent what follows."""
    facts: dict[str, Any] = getattr(task.request, HEADER, None) or {}
    store = open_store()
    if facts.get("redrive_of"):
        return on_redriven(store, ref, dict(task.request.kwargs or {}))
    hand_over(store.interrupted(ref))
    hand_over(store.unsent(ref))
    return None


def _aside[T](act: Callable[[], T]) -> T:
    """Do what waits for a server: on the loop of the asyncio pool, in a thread."""
    if is_on_loop():
        done: T = finish(asyncio.to_thread(act))
        return done
    return act()


def _reason(again: Redeliver) -> BaseException | None:
    error: Any = again.exc
    return error if isinstance(error, BaseException) else None
