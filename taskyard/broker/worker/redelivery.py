"""Bring the same message back later: what `settle` raises, and Celery's own `retry` in these terms."""

from datetime import UTC, datetime
from typing import Any, NoReturn

from celery import Task
from celery.exceptions import Ignore, Retry

from taskyard.broker.worker.portable_errors import error_text


class CancelledRun(Ignore):
    """Ends a run that did not do its work and is not to: recorded as cancelled, neither done nor failed."""


class Redeliver(Retry):
    """
    Raised inside `run`: the same message comes back after `delay` seconds.

    The worker's main process moves it in the script that ends its lease, so there is never a second message nor a gap.
    Celery sees a `Retry`: signals, `on_retry` and the state RETRY are as for its own. `uses_attempt` is False for a
    snooze; `exc` is what went wrong.
    """

    def __init__(self, delay: float, exc: BaseException | None = None, *, uses_attempt: bool = True) -> None:
        reason: Any = exc
        seconds: Any = delay
        super().__init__(None if exc is None else error_text(exc), reason, seconds)
        self.delay = delay
        self.uses_attempt = uses_attempt

    def __reduce__(self) -> Any:
        return _rebuild, (self.delay, self.exc, self.uses_attempt)


def _rebuild(delay: float, exc: BaseException | None, uses_attempt: bool) -> Redeliver:  # noqa: FBT001 - by position
    return Redeliver(delay, exc, uses_attempt=uses_attempt)


class RetryInPlace(Task):  # type: ignore[type-arg]  # generic only for type checkers
    """
    Base class of plain tasks: `self.retry()` brings the same message back instead of sending a second one.

    A retry with other arguments or options, or outside a worker, stays Celery's own.
    """

    abstract = True

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
    ) -> Any:
        """See Celery's `Task.retry`; `countdown` in seconds."""
        request = self.request
        is_special = args is not None or kwargs is not None or options or not throw
        if is_special or request.called_directly or request.is_eager:
            return super().retry(
                args, kwargs, exc=exc, throw=throw, eta=eta, countdown=countdown, max_retries=max_retries, **options
            )
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and (request.retries or 0) >= limit:
            self._give_up(exc)
        if eta is not None:
            due = eta if eta.tzinfo else eta.replace(tzinfo=UTC)
            countdown = (due - datetime.now(UTC)).total_seconds()
        elif countdown is None:
            countdown = self.default_retry_delay
        raise Redeliver(max(0.0, countdown), exc)

    def _give_up(self, exc: Exception | None) -> NoReturn:
        if exc is not None:
            raise exc
        error: Any = self.MaxRetriesExceededError
        message = f"Can't retry {self.name}[{self.request.id}] once more"
        raise error(message, task_args=self.request.args, task_kwargs=self.request.kwargs)
