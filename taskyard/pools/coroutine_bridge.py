"""Wait for a coroutine from synchronous code: Celery's tracer calls `settle`, which has a coroutine to finish."""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from greenlet import getcurrent, greenlet


class HandlerCancelledError(RuntimeError):
    """A coroutine ended by a cancellation that came from itself: a failure like any other."""


class _SoftLimitInside(SoftTimeLimitExceeded, asyncio.CancelledError):
    """
    How the soft limit arrives where a coroutine waits: a cancellation for whatever is in between.

    Locks, connections and task groups tidy up after a cancellation, and after nothing else; a group that heard of
    another error would leave its children running.
    """


class CoroutineControl:
    """Interrupts one coroutine: by its soft limit, or for good; for the loop's thread only."""

    def __init__(self, seconds: float | None = None) -> None:
        """`seconds` is the soft limit."""
        self.seconds = seconds
        self.is_cancelled = False  # by the pool, for good
        self._is_through = False  # the coroutine has ended
        self._is_due = False

    def interrupt(self, task: asyncio.Task[Any]) -> None:
        """Raise `SoftTimeLimitExceeded` where the coroutine waits; what comes after it is not disturbed."""
        if not self._is_through:
            self._is_due = True
            task.cancel()

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """End it."""
        self.is_cancelled = True
        task.cancel()

    def take(self) -> bool:
        """Whether a cancellation that arrives now is the soft limit; true once."""
        is_due, self._is_due = self._is_due, False
        return is_due and not self.is_cancelled

    def end(self) -> None:
        """Note that the coroutine has ended."""
        self._is_through = True


class TracerGreenlet(greenlet):
    """Celery's tracer on the loop's thread: it hands a coroutine to its parent and sleeps until it is done."""


async def drive(coroutine: Coroutine[Any, Any, Any], limits: CoroutineControl) -> Any:
    """
    Await a coroutine; a cancellation that means the soft limit arrives in it as `SoftTimeLimitExceeded`.

    Raises:
        HandlerCancelledError: It ended by a cancellation that is not the pool's.
    """
    try:
        return await _drive(coroutine, limits)
    except _SoftLimitInside as passed:
        raise SoftTimeLimitExceeded(*passed.args) from passed
    except asyncio.CancelledError as cancelled:
        if limits.is_cancelled:
            raise
        raise HandlerCancelledError("the handler ended by a CancelledError of its own") from cancelled
    finally:
        limits.end()


@types.coroutine
def _drive(coroutine: Coroutine[Any, Any, Any], limits: CoroutineControl) -> Generator[Any, Any, Any]:
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
            if limits.take():
                current = asyncio.current_task()
                if current is not None:
                    current.uncancel()
                error = _SoftLimitInside(limits.seconds)
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
    limits = CoroutineControl()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(drive(coroutine, limits), context=contextvars.copy_context())
        while True:
            try:
                return loop.run_until_complete(task)
            except SoftTimeLimitExceeded as error:  # prefork's signal handler raises it, mostly while the loop waits
                if task.done():
                    raise
                limits.seconds = error.args[0] if error.args else None
                limits.interrupt(task)
