"""Interim."""

from typing import Any

from celery.exceptions import Retry


class Redeliver(Retry):
    """The same message shall come back after a delay."""

    def __init__(self, delay: float, exc: BaseException | None = None, *, uses_attempt: bool = True) -> None:
        super().__init__(str(exc), exc, delay)
        self.delay = delay
        self.uses_attempt = uses_attempt

    def __reduce__(self) -> Any:
        return _rebuild, (self.delay, self.exc, self.uses_attempt)


def _rebuild(delay: float, exc: BaseException | None, uses_attempt: bool) -> Redeliver:  # noqa: FBT001
    return Redeliver(delay, exc, uses_attempt=uses_attempt)
