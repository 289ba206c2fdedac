"""What is kept of an error: its class, text and traceback, bounded."""

from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Retry

from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.untyped import ExceptionWithTraceback
from taskyard.broker.worker.portable_errors import error_name, error_text

LONGEST_TEXT = 8192  # characters of an error's message or traceback in an event


def cause_of(exc_info: ExceptionInfo) -> BaseException:
    """Return the error that the task raised."""
    error: Any = exc_info.exception
    found: BaseException = error.exc if isinstance(error, ExceptionWithTraceback) else error
    return found


def reason_of(retry: Retry) -> BaseException:
    """Return the error for which a task asked to be retried, or the retry itself."""
    exc: Any = retry.exc
    return exc if isinstance(exc, BaseException) else Retry(str(retry))


def failure_detail(exc_info: ExceptionInfo, runtime: float | None, **more: Any) -> str:
    """Return the detail of an event about an error; `runtime` in seconds."""
    cause = cause_of(exc_info)
    error: BaseException = reason_of(cause) if isinstance(cause, Retry) else cause
    return detail(
        error=error_name(error),
        message=error_text(error)[:LONGEST_TEXT],
        traceback=str(exc_info.traceback)[-LONGEST_TEXT:],
        runtime=runtime,
        **more,
    )
