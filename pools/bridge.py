"""Wait for a coroutine from synchronous code: Celery's tracer calls `settle`, which has a coroutine to finish."""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from greenlet import getcurrent, greenlet


class SoftLimit:
    """Whether the soft time limit has passed, and whether the coroutine has been told."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self._is_due = False

    def interrupt(self, task: asyncio.Task[Any]) -> None:
        """Raise `SoftTimeLimitExceeded` where the coroutine waits; call it in the loop's thread."""
        self._is_due = True
        task.cancel()

    def take(self) -> bool:
        """Whether a cancellation that arrives now is the soft limit; true once."""
        is_due, self._is_due = self._is_due, False
        return is_due


class TracerGreenlet(greenlet):
    """Celery's tracer on the loop's thread: it hands a coroutine to its parent and sleeps until it is done."""


@types.coroutine
def drive(coroutine: Coroutine[Any, Any, Any], limit: SoftLimit) -> Generator[Any, Any, Any]:
    """Await a coroutine; a cancellation that means the soft limit arrives in it as `SoftTimeLimitExceeded`."""
    error: BaseException | None = None
    while True:
        try:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        try:
            yield awaited
            error = None
        except asyncio.CancelledError as cancelled:
            error = cancelled
            if limit.take():
                current = asyncio.current_task()
                if current is not None:
                    current.uncancel()
                error = SoftTimeLimitExceeded(limit.seconds)
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the coroutine's
            error = raised


def is_on_loop() -> bool:
    """Whether Celery's tracer runs on the asyncio pool's loop here: what blocks would block all."""
    return isinstance(getcurrent(), TracerGreenlet)


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """
    Return what the coroutine returns: on the pool's loop, or in the other pools on a loop of its own.

    Raises:
        BaseException: What the coroutine raises.
    """
    current = getcurrent()
    if isinstance(current, TracerGreenlet) and current.parent is not None:
        return current.parent.switch(coroutine)
    return _finish_alone(coroutine)


def _finish_alone(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """One loop for one coroutine: nothing of one task is left for the next one of this slot."""
    limit = SoftLimit()

    async def driven() -> Any:
        return await drive(coroutine, limit)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(driven(), context=contextvars.copy_context())
        while True:
            try:
                return loop.run_until_complete(task)
            except SoftTimeLimitExceeded as error:  # prefork's signal handler raises it, mostly while the loop waits
                if task.done():
                    raise
                limit.seconds = error.args[0] if error.args else None
                limit.interrupt(task)
