"""Declare a task: `@task` makes of a function a Celery task whose calls are checked by mypy and by its payload."""

import re
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction, isfunction
from typing import Any, Protocol, Unpack, cast

from celery.exceptions import NotRegistered
from celery.local import Proxy

from taskyard.settings.queues import Queue, declare
from taskyard.tasks.call_options import CallOptions, RunHandle
from taskyard.tasks.current_app import DeclaredTask, current_app, declare_task, is_declared
from taskyard.tasks.errors import NotReadyError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.platform_task import PlatformTask
from taskyard.tasks.policy import Policy
from taskyard.tasks.settle import settle

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,254}")


class TypedTask[**P, M: Payload](Protocol):
    """What ``@task`` makes of a function: a Celery task whose calls are checked by mypy and by its payload model."""

    name: str
    payload: type[M]

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle:
        """Enqueue with these payload fields."""

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle:
        """As `delay`, for `async def` handlers."""

    def enqueue(self, payload: M, **options: Unpack[CallOptions]) -> RunHandle:
        """Enqueue a payload with options."""

    def apply_async(
        self, args: None = None, kwargs: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> RunHandle:
        """Enqueue with JSON-like keyword arguments and options."""


def task[**P, M: Payload](
    name: str,
    payload: Callable[P, M],
    *,
    queue: Queue,
    policy: Policy | None = None,
    on_redrive: Callable[[M], None] | None = None,
) -> Callable[[Callable[[M], Any]], TypedTask[P, M]]:
    """
    Declare a task: a stable name, one payload model, one line of work.

    Args:
        name: Travels on the wire; ``domain.verb``, never derived from a module's path.
        payload: The payload model (a class).
        queue: Where it waits; one of the platform's, or one of the app's own, which is declared by this.
        policy: What it is granted; None takes the defaults of :class:`taskyard.tasks.policy.Policy`.
        on_redrive: Called in the operator's process before a dead letter of this task is sent again.

    Raises:
        ValueError: The name is taken or invalid, or the queue cannot be.
        TypeError: What is decorated is no function, or the payload is no payload model.
    """
    _check_name(name)
    if not (isinstance(payload, type) and issubclass(payload, Payload)):
        raise TypeError(f"task {name!r}: its payload {payload!r:.80} is not a subclass of Payload")
    if is_declared(name):
        raise ValueError(f"task {name!r} is declared twice")
    declare(queue)
    granted = policy or Policy()

    def register(handler: Callable[[M], Any]) -> TypedTask[P, M]:
        _check_handler(name, handler)

        def run(self: PlatformTask, *args: Any, **kwargs: Any) -> Any:
            return settle(self, args, kwargs)

        run.__name__, run.__module__, run.__doc__ = handler.__name__, handler.__module__, handler.__doc__
        attributes: dict[str, Any] = {
            "base": PlatformTask,
            "payload": payload,
            "handler": staticmethod(handler),
            "is_async": iscoroutinefunction(handler),
            "home": queue,
            "policy": granted,
            "on_redrive": on_redrive and staticmethod(on_redrive),
            "soft_time_limit": granted.soft_limit and granted.soft_limit.total_seconds(),
            "time_limit": granted.hard_limit and granted.hard_limit.total_seconds(),
        }
        declare_task(DeclaredTask(name, run, queue, attributes))
        return cast("TypedTask[P, M]", Proxy(lambda: _registered(name)))

    return register


def _registered(name: str) -> PlatformTask:
    """
    Return the task in the app of this process.

    Raises:
        NotReadyError: The app is being made; that was interrupted, as by a signal's handler.
    """
    try:
        return cast("PlatformTask", current_app().tasks[name])
    except NotRegistered as error:
        raise NotReadyError(
            f"{name} cannot be sent yet: the app is being made, in the import or the call that this one interrupts; "
            "in a signal's handler set a flag, and send when the interrupted call is done"
        ) from error


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"task {name!r:.140}: use 1-255 letters, digits, '_', '.', ':' and '-', a letter or digit first"
        )


def _check_handler(name: str, handler: Any) -> None:
    """Refuse what has no name of its own: logs, tracebacks and documentation would show none."""
    if not isfunction(handler) or handler.__name__ == "<lambda>":
        what = "a lambda" if isfunction(handler) else f"{handler!r:.80}"
        raise TypeError(f"task {name!r}: its handler is a function made by def or async def, not {what}")
