"""One execution in the asyncio pool."""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Terminated

from pools.bridge import SoftLimit

current_job: ContextVar["Job | None"] = ContextVar("current_job", default=None)


class Job:
    """What Celery asked the pool to run, and how far it is; but for `terminate`, for the loop's thread only."""

    def __init__(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
    ) -> None:
        self.target, self.args, self.kwargs = target, args, kwargs
        self.name = str(args[0]) if args else "unknown"
        self.hard: float | None = options.get("timeout")  # seconds
        self.limit = SoftLimit(options.get("soft_timeout"))
        self.task: asyncio.Task[None] | None = None
        self.is_over = False  # its outcome is told; what it still does no longer counts
        self._on_accept: Callable[..., Any] | None = options.get("accept_callback")
        self._on_end: Callable[..., Any] | None = options.get("callback")
        self._on_timeout: Callable[..., Any] | None = options.get("timeout_callback")
        self._ask_pool: Callable[[Job], None] = options["on_terminate"]

    def terminate(self, signal: int | None = None) -> None:  # noqa: ARG002 - Celery's signature
        """Cancel it, if it has started: called by Celery, in any thread, for a revoked task or a lost lease."""
        self._ask_pool(self)

    def accept(self, pid: int) -> None:
        """
        Tell Celery that it starts.

        Raises:
            TaskRevokedError: It must not.
        """
        if self._on_accept is not None:
            self._on_accept(pid, time.monotonic())

    def tell(self, outcome: Any) -> None:
        """Tell Celery how it ended, once."""
        if not self.is_over:
            self.is_over = True
            if self._on_end is not None:
                self._on_end(outcome)

    def tell_error(self, error: BaseException) -> None:
        """Tell Celery that it ended by an error that the tracer did not catch."""
        self.tell((1, ExceptionInfo((type(error), error, error.__traceback__)), 0))

    def tell_terminated(self) -> None:
        """Tell Celery that it was cancelled."""
        self.tell_error(Terminated("cancelled"))

    def pass_soft_limit(self) -> None:
        """The soft limit is over: raise it inside the coroutine."""
        if self.task is not None and not self.task.done():
            if self._on_timeout is not None:
                self._on_timeout(True, self.limit.seconds)  # noqa: FBT003 - Celery's signature
            self.limit.interrupt(self.task)

    def pass_hard_limit(self) -> None:
        """The hard limit is over: Celery buries it, and the coroutine is cancelled."""
        if self.task is not None and not self.task.done() and not self.is_over:
            self.is_over = True
            if self._on_timeout is not None:
                self._on_timeout(False, self.hard)  # noqa: FBT003 - as above
            self.task.cancel()
