"""Exceptions by which a handler chooses the outcome; any other exception means: try again."""

from datetime import timedelta
from typing import Any


class TaskError(Exception):
    """Base of the exceptions that choose an outcome."""


class PermanentError(TaskError):
    """Retrying cannot help: the task becomes a dead letter at once."""

    dead_letter_reason = "permanent"


class InvalidPayloadError(PermanentError, ValueError):
    """The fields do not fit the task's payload model; the text names each field and what is wrong with it."""

    dead_letter_reason = "invalid_payload"


class UnknownTaskError(TaskError, LookupError):
    """No task of this name is registered, so nothing was sent."""


class NotReadyError(TaskError, RuntimeError):
    """The app of this process is still being made, so nothing was sent."""


class Superseded(TaskError):  # noqa: N818 - it names an outcome, as Snooze does
    """This run did not do its work, and something else does: it is recorded as cancelled, neither done nor failed."""


class InvalidDelayError(PermanentError, ValueError):
    """A handler gave a delay that is none: trying again would give the same one."""


class RetryAfter(TaskError):  # noqa: N818 - it names an outcome, as Snooze does
    """Try again after this time (a timedelta, or seconds) instead of the policy's backoff; uses an attempt."""

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        super().__init__(delay, reason)
        self.delay = _checked("RetryAfter", delay)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or f"again in {self.delay}"


class Snooze(TaskError):  # noqa: N818 - it names an outcome, not a fault
    """Not yet: the task comes back after this time (a timedelta, or seconds) without using an attempt."""

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        super().__init__(delay, reason)
        self.delay = _checked("Snooze", delay)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or f"not before {self.delay} have passed"


def _checked(outcome: str, delay: Any) -> timedelta:
    if isinstance(delay, int | float) and not isinstance(delay, bool):
        try:
            delay = timedelta(seconds=delay)
        except (OverflowError, ValueError) as error:  # beyond a million years; NaN
            raise InvalidDelayError(f"{outcome}({delay}): {error}") from None
    if not isinstance(delay, timedelta):
        raise InvalidDelayError(f"{outcome}({delay!r:.80}): give a timedelta or a number of seconds")
    if delay < timedelta(0):
        raise InvalidDelayError(f"a delay of {delay} lies in the past")
    return delay
