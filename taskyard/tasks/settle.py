"""`settle` runs a handler once and decides the outcome: the table in docs/outcomes.md, and nothing else."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from celery.exceptions import Ignore, Reject
from pydantic_core import to_jsonable_python

from taskyard.broker.worker.redelivery import CancelledRun, Redeliver
from taskyard.pools.coroutine_bridge import finish
from taskyard.settings.loading import current_settings
from taskyard.tasks.errors import PermanentError, RetryAfter, Snooze, Superseded
from taskyard.tasks.execution import attempt_number, max_attempts_of, queue_of
from taskyard.tasks.platform_task import PlatformTask, keywords_only
from taskyard.tasks.policy import LONGEST_DELAY
from taskyard.tasks.reporting import reporting

type Supervisor = Callable[[PlatformTask, Callable[[], Any]], Any]

_supervisors: dict[str, Supervisor] = {}


def supervise(header: str, supervisor: Supervisor) -> None:
    """
    Let every execution of a message that has this header be run by `supervisor`.

    It is given the task, and a function that runs the handler once and returns its result or raises the outcome. It
    does the same, and can record the outcome before the message is settled.
    """
    _supervisors[header] = supervisor


def settle(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run the handler once and decide the outcome, under the message's supervisor if it has one."""
    for header, supervisor in _supervisors.items():
        if getattr(task.request, header, None) is not None:
            return supervisor(task, lambda: decide(task, args, kwargs))
    return decide(task, args, kwargs)


def decide(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """
    Run the handler and return its result as JSON values, or raise the outcome.

    The request class carries it out: :class:`Redeliver` moves the message, any other exception makes a dead letter.
    """
    try:
        return _run_handler(task, args, kwargs)
    except Snooze as not_yet:
        raise _again(not_yet.delay, not_yet, uses_attempt=False) from not_yet
    except Superseded as error:
        raise CancelledRun(str(error)) from error
    except (PermanentError, Ignore, Reject):  # the last two are Celery's: done, and for the broker to decide
        raise
    except RetryAfter as error:
        if _is_last_attempt(task):
            raise
        raise _again(error.delay, error) from error
    except Exception as error:
        if _is_last_attempt(task):
            raise
        raise _again(task.policy.backoff.delay(attempt_number(task)), error) from error


def _run_handler(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with reporting(task.request.id, queue_of(task), attempt_number(task)):
        value = task.handler(task.payload.from_wire(keywords_only(task, args, kwargs)))
        return to_jsonable_python(finish(value) if inspect.iscoroutine(value) else value)


def _again(delay: timedelta, error: Exception, *, uses_attempt: bool = True) -> Redeliver:
    """Return the outcome "the same message comes back after this delay"."""
    return Redeliver(min(delay, LONGEST_DELAY).total_seconds(), error, uses_attempt=uses_attempt)


def _is_last_attempt(task: PlatformTask) -> bool:
    limit = max_attempts_of(task) or task.policy.max_attempts or current_settings().worker_queue_job_attempts
    return attempt_number(task) >= limit
