"""The task class: typed calls at the caller's side, and `settle`, where every outcome is decided."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn, cast

from celery import Task
from celery.exceptions import Ignore, Reject
from pydantic_core import to_jsonable_python

from taskyard.broker.protocol.header import HEADER, MessageFacts
from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.broker.worker.redelivery import Redeliver
from taskyard.pools.coroutine_bridge import finish
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import Queue
from taskyard.tasks.call_options import Run, message_options
from taskyard.tasks.errors import InvalidPayloadError, PermanentError, RetryAfter, Snooze, TaskError
from taskyard.tasks.option_checks import check_queue
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import LONGEST_DELAY, Policy
from taskyard.tasks.reporting import reporting
from taskyard.tasks.retry_call import refuse_other_message, wait_until


class PlatformTask(Task[..., Any]):
    """A task with a payload model, a queue and a policy; made by ``taskyard.task``."""

    abstract = True
    typing = False  # the payload model checks the arguments
    acks_late = True
    max_retries = None  # `settle` counts attempts
    Request = "taskyard.broker.worker.request:PlatformRequest"

    payload: type[Payload]
    handler: Callable[[Any], Any]
    is_async: bool = False  # the handler is `async def`: the asyncio pool runs it on its loop
    home: Queue
    policy: Policy
    on_redrive: Callable[[Any], None] | None = None  # makes the domain's row ready for fresh attempts

    def delay(self, *args: Any, **fields: Any) -> Run:
        """
        Enqueue with these payload fields.

        Raises:
            InvalidPayloadError: The fields do not fit the model; nothing was sent.
        """
        return self.enqueue(self.payload.checked(**_no_positional(self, args, fields)))

    async def adelay(self, *args: Any, **fields: Any) -> Run:
        """As :meth:`delay`, from a coroutine: the loop goes on while the broker answers."""
        return await asyncio.to_thread(self.delay, *args, **fields)

    def apply_async(  # type: ignore[override]  # the options are those of CallOptions, and pass through to Celery
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Run:
        """
        Enqueue with JSON-like keyword arguments and options: see :class:`taskyard.tasks.call_options.CallOptions`.

        Raises:
            InvalidPayloadError: The arguments do not fit the payload model; nothing was sent.
            ValueError: An option has no meaning; nothing was sent.
        """
        return self.enqueue(self.payload.from_wire(_no_positional(self, args or (), kwargs or {})), **options)

    def enqueue(self, payload: Payload, **options: Any) -> Run:
        """Enqueue a payload that was already checked, with the same options as :meth:`apply_async`."""
        with collect_duplicates() as duplicates:
            sent = self.send(payload, options)
        existing = duplicates.get(str(sent.id))
        return sent if existing is None else self.duplicate(existing)

    def send(self, payload: Payload, options: dict[str, Any]) -> Run:
        """Publish the message; the caller collects duplicates."""
        wire = self.wire_of(payload)
        check_queue(options.get("queue"), self.app.amqp.queues)
        return self.publish(wire, message_options(payload.mask(wire), options))

    def wire_of(self, payload: Any) -> dict[str, Any]:
        """
        Return the JSON values of a payload of this task.

        Raises:
            InvalidPayloadError: It is none, or cannot travel.
        """
        if not isinstance(payload, self.payload):
            raise InvalidPayloadError(
                f"{self.name} takes a {self.payload.__name__}, not a {type(payload).__name__}; "
                "for the fields of one: apply_async(kwargs=...)"
            )
        return payload.to_wire()

    def publish(self, wire: Mapping[str, Any], options: Mapping[str, Any]) -> Run:
        """
        Publish a payload's JSON values with Celery's options, as Celery does.

        It declares no queue, which is a sixth of the work: messages go to a queue by its name, declared or not.
        """
        return cast("Run", super().apply_async((), dict(wire), **{"declare": (), **options}))

    def duplicate(self, run_id: str) -> Run:
        """Return the handle of a run that was already there."""
        run = self.AsyncResult(run_id)
        run.is_duplicate = True
        return run

    def retry(  # noqa: PLR0913, PLR0917 - Celery's signature
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> NoReturn:
        """
        Ask for another attempt in Celery's words; how many there are is up to the policy, and so is the pause.

        Celery's own would send a second message beside the one that comes back, so what would be said of it is refused.

        Raises:
            RetryAfter: With a `countdown` in seconds, or an `eta`.
            TypeError: Something else was asked for; the text says what to do instead.
            ValueError: Not a countdown, not an eta, or both.
            Exception: `exc`, if given.
        """
        refuse_other_message(
            args=args, kwargs=kwargs, throw=None if throw else False, max_retries=max_retries, **options
        )
        wait = wait_until(countdown, eta)
        if wait is not None:
            raise RetryAfter(wait, str(exc or "")) from exc
        raise exc or TaskError("asked for another attempt")

    def AsyncResult(self, task_id: str, **options: Any) -> Run:  # noqa: N802 - Celery's name
        """Return the handle of a run of this task."""
        return Run(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def settle(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """
    Run the handler once and decide the outcome; the table in docs/outcomes.md, and nothing else.

    Returns what the handler returned, as JSON values: done. The request class carries the other outcomes out: it moves
    the message on :class:`Redeliver`, and buries it on any other exception.
    """
    try:
        with reporting(task.request.id, _queue_of(task), attempt_number(task)):
            value = task.handler(task.payload.from_wire(_no_positional(task, args, kwargs)))
            return to_jsonable_python(finish(value) if inspect.iscoroutine(value) else value)
    except Snooze as error:
        raise Redeliver(_bounded(error.delay), error, uses_attempt=False) from error
    except (PermanentError, Ignore, Reject):  # the last two are Celery's words, `replace` says the first of them
        raise
    except RetryAfter as error:
        _raise_if_last(task, error)
        raise Redeliver(_bounded(error.delay), error) from error
    except Exception as error:
        _raise_if_last(task, error)
        raise Redeliver(_bounded(task.policy.backoff.delay(attempt_number(task))), error) from error


def attempt_number(task: PlatformTask) -> int:
    """Return the number of the attempt that is running, from 1."""
    return _facts(task).get("attempt", 1)


def was_redelivered(task: Any) -> bool:
    """Tell whether an earlier worker of the message that is running was lost: it may have done part of the work."""
    delivery: Mapping[str, Any] = task.request.delivery_info or {}
    return bool(delivery.get("redelivered"))


def _raise_if_last(task: PlatformTask, error: Exception) -> None:
    limit = _facts(task).get("max_attempts") or task.policy.max_attempts or current_settings().worker_queue_job_attempts
    if attempt_number(task) >= limit:
        raise error


def _facts(task: PlatformTask) -> MessageFacts:
    return cast("MessageFacts", getattr(task.request, HEADER, None) or {})


def _queue_of(task: PlatformTask) -> str:
    return str((task.request.delivery_info or {}).get("routing_key") or task.home.name)


def _bounded(delay: timedelta) -> float:
    return min(delay, LONGEST_DELAY).total_seconds()


def _no_positional(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    if args:
        raise InvalidPayloadError(
            f"{task.name} takes keyword arguments only, got {len(args)} positional; "
            "in a chain use .si() instead of .s()"
        )
    return kwargs
