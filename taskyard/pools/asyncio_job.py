"""One execution in the asyncio pool."""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.utils.log import get_logger

from taskyard.pools.coroutine_bridge import CoroutineControl

log = get_logger(__name__)

current_job: ContextVar["AsyncioJob | None"] = ContextVar("current_job", default=None)


class AsyncioJob:
    """One job of Celery's and its progress; except for `terminate`, for the loop's thread only."""

    def __init__(
        self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
    ) -> None:
        self.target, self.args, self.kwargs = target, args, kwargs
        self.name = str(args[0]) if args else "unknown"
        self.hard: float | None = options.get("timeout")  # seconds
        self.limits = CoroutineControl(options.get("soft_timeout"))
        self.task: asyncio.Task[None] | None = None
        self.is_over = False  # its outcome is reported; what it still does no longer counts
        self._on_accept: Callable[..., Any] | None = options.get("accept_callback")
        self._on_end: Callable[..., Any] | None = options.get("callback")
        self._on_error: Callable[..., Any] | None = options.get("error_callback")
        self._on_timeout: Callable[..., Any] | None = options.get("timeout_callback")
        self._ask_pool: Callable[[AsyncioJob], None] = options["on_terminate"]

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
                self._try_to_tell(self._on_end, outcome)

    def tell_error(self, error: BaseException) -> None:
        """Tell Celery that it ended by an error that the tracer did not catch."""
        if not self.is_over:
            self.is_over = True
            self._bury(error)

    def _try_to_tell(self, callback: Callable[..., Any], *facts: Any) -> None:
        """An outcome that is not reported would keep the message for the worker's life."""
        try:
            callback(*facts)
        except BaseException as error:
            log.exception("the outcome of %s could not be reported", self.name)
            self._bury(error)

    def _bury(self, error: BaseException) -> None:
        if self._on_error is not None:
            self._on_error(info_of(error))

    def pass_soft_limit(self) -> None:
        """The soft limit is over: raise it inside the coroutine."""
        if self.task is not None and not self.task.done():
            if self._on_timeout is not None:
                self._on_timeout(True, self.limits.seconds)  # noqa: FBT003 - Celery's signature
            self.limits.interrupt(self.task)

    def pass_hard_limit(self) -> None:
        """The hard limit is over: Celery buries it, and the coroutine is cancelled."""
        if self.task is not None and not self.task.done() and not self.is_over:
            self.is_over = True
            self.limits.cancel(self.task)
            if self._on_timeout is not None:
                self._try_to_tell(self._on_timeout, False, self.hard)  # noqa: FBT003 - as above


def info_of(error: BaseException) -> ExceptionInfo:
    """Return what Celery wants of an error, with a traceback also where it was never raised."""
    try:
        raise error  # noqa: TRY301 - it is caught for its traceback
    except BaseException:  # noqa: BLE001 - whatever it is
        return ExceptionInfo()
