"""The class of typed tasks: validated calls at the caller's side; `settle` decides outcomes at the worker's."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn, cast

from celery import Task

from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.broker.transport.single_publish import SinglePublisher
from taskyard.settings.queues import Queue
from taskyard.tasks.call_options import RunHandle, message_options
from taskyard.tasks.errors import InvalidPayloadError, RetryAfter, TaskError
from taskyard.tasks.option_checks import check_queue
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import Policy
from taskyard.tasks.retry_call import refuse_other_message, wait_until


class PlatformTask(Task[..., Any]):
    """A task with a payload model, a queue and a policy; made by ``@task``."""

    abstract = True
    typing = False  # the payload model checks the arguments
    acks_late = True
    max_retries = None  # `settle` counts attempts
    Request = "taskyard.broker.worker.request:PlatformRequest"

    payload: type[Payload]
    handler: Callable[[Any], Any]
    is_async: bool = False  # `async def` handler: the asyncio pool runs it on its event loop
    home: Queue
    policy: Policy
    on_redrive: Callable[[Any], None] | None = None  # prepares the domain's row for new attempts

    def delay(self, *args: Any, **fields: Any) -> RunHandle:
        """
        Enqueue with these payload fields.

        Raises:
            InvalidPayloadError: The fields do not fit the model; nothing was sent.
        """
        return self.enqueue(self.payload.checked(**keywords_only(self, args, fields)))

    async def adelay(self, *args: Any, **fields: Any) -> RunHandle:
        """As :meth:`delay`, without blocking the event loop."""
        return await asyncio.to_thread(self.delay, *args, **fields)

    def apply_async(  # type: ignore[override]  # the options are those of CallOptions, and pass through to Celery
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> RunHandle:
        """
        Enqueue with JSON-like keyword arguments and options: see :class:`taskyard.tasks.call_options.CallOptions`.

        Raises:
            InvalidPayloadError: The arguments do not fit the payload model; nothing was sent.
            ValueError: An option has no meaning; nothing was sent.
        """
        return self.enqueue(self.payload.from_wire(keywords_only(self, args or (), kwargs or {})), **options)

    def enqueue(self, payload: Payload, **options: Any) -> RunHandle:
        """Enqueue a payload that was already checked, with the same options as :meth:`apply_async`."""
        with collect_duplicates() as duplicates:
            sent = self.send(payload, options)
        existing = duplicates.get(str(sent.id))
        return sent if existing is None else self.duplicate(existing)

    def send(self, payload: Payload, options: dict[str, Any]) -> RunHandle:
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

    def publish(self, wire: Mapping[str, Any], options: Mapping[str, Any]) -> RunHandle:
        """
        Publish a payload's JSON values with Celery's options.

        Skips declaring the queue, a sixth of the work: messages reach a queue by its name, declared or not.
        """

        def long_way(**more: Any) -> Any:
            return super(PlatformTask, self).apply_async((), dict(wire), **{"declare": (), **options, **more})

        return cast("RunHandle", self._publisher.publish(wire, options, long_way))

    @cached_property
    def _publisher(self) -> SinglePublisher:
        return SinglePublisher(self)

    def duplicate(self, run_id: str) -> RunHandle:
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
        Ask for another attempt, with Celery's signature; the policy decides how many there are, and the default delay.

        Celery's own would send a second message beside the one that comes back, so its other options are refused.

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

    def AsyncResult(self, task_id: str, **options: Any) -> RunHandle:  # noqa: N802 - Celery's name
        """Return the handle of a run of this task."""
        return RunHandle(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def keywords_only(task: PlatformTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Return the keyword arguments of a call.

    Raises:
        InvalidPayloadError: There are positional ones.
    """
    if args:
        raise InvalidPayloadError(
            f"{task.name} takes keyword arguments only, got {len(args)} positional; "
            "in a chain use .si() instead of .s()"
        )
    return kwargs
