"""Wait for a condition, with a limit and a description: the only way a test may wait."""

import time
from collections.abc import Callable

PAUSE = 0.02  # seconds between two looks


def wait_for[T](
    condition: Callable[[], T], limit_seconds: float, description: str, report: Callable[[], str] | None = None
) -> T:
    """
    Return the first true value of `condition`.

    Raises:
        AssertionError: Still false after `limit_seconds`; the message says what was awaited, and what was seen last or
            what `report` says.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > deadline:
            more = report() if report else f"last seen: {seen!r}"
            raise AssertionError(f"not within {limit_seconds} s: {description} ({more})")
        time.sleep(PAUSE)


def stays_true(condition: Callable[[], object], seconds: float, description: str) -> None:
    """
    Watch `condition` for `seconds`, for promises that something does not happen.

    Raises:
        AssertionError: It became false in that time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not condition():
            raise AssertionError(f"no longer true: {description}")
        time.sleep(PAUSE)
