"""Arguments of `task.retry()`: what is supported, and what to do instead of the rest."""

from datetime import UTC, datetime, timedelta
from typing import Any

from taskyard.tasks.option_checks import check_options

INSTEAD = {
    "max_retries": "give max_attempts in the task's Policy or in the call; it counts the first execution, too",
    "throw": "raise RetryAfter or Snooze where the handler shall end",
    "args": "enqueue a new run with the other payload",
    "kwargs": "enqueue a new run with the other payload",
}


def refuse_other_message(**asked: Any) -> None:
    """
    Refuse arguments that would change the message that comes back; None means not given.

    >>> refuse_other_message(max_retries=None)

    Raises:
        TypeError: Something was asked for; the text says what to do instead.
    """
    for name, value in asked.items():
        if value is not None:
            instead = INSTEAD.get(name, "enqueue a new run with it")
            raise TypeError(f"retry() takes no {name} here, for the same message comes back: {instead}")


def wait_until(countdown: float | None, eta: datetime | None) -> timedelta | None:
    """
    Return how long to wait; None leaves it to the policy. An eta in the past means now.

    Raises:
        ValueError: Not a number of seconds, not a moment, or both.
    """
    chosen: dict[str, Any] = {"countdown": countdown, "eta": eta}
    check_options(chosen)
    if countdown is not None and eta is not None:
        raise ValueError("countdown and eta exclude each other")
    if eta is not None:
        moment: datetime = chosen["eta"]
        return max(moment - datetime.now(UTC), timedelta(0))
    return None if countdown is None else timedelta(seconds=countdown)
