"""Retry policies: number of attempts, backoff and time limits."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

LONGEST_DELAY = timedelta(days=7)  # longer delays are cut: an outside party must not park a task for ever


class Backoff(Protocol):
    """Gives the wait before the next attempt."""

    def delay(self, attempt: int) -> timedelta:
        """Return the wait after the failed attempt number ``attempt`` (1-based)."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    The same wait before every attempt.

    >>> Fixed(timedelta(seconds=5)).delay(3)
    datetime.timedelta(seconds=5)
    """

    wait: timedelta

    def delay(self, attempt: int) -> timedelta:  # noqa: ARG002 - a backoff is asked with the attempt's number
        """Return the wait."""
        return self.wait


@dataclass(frozen=True, slots=True)
class Exponential:
    """
    base, 2 x base, 4 x base ... up to a cap, each varied by ``jitter`` (a share, 0-1) either way.

    >>> [Exponential(timedelta(seconds=2), jitter=0).delay(n).seconds for n in (1, 2, 3)]
    [2, 4, 8]
    """

    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(minutes=10)
    jitter: float = 0.2
    chance: Callable[[], float] = field(default=random.random, repr=False)  # uniform in [0, 1)

    def delay(self, attempt: int) -> timedelta:
        """Return ``min(cap, base * 2**(attempt - 1))``, varied by the jitter, never above the cap."""
        doublings = min(attempt - 1, 62)  # beyond, the cap decides; a timedelta would overflow
        steady = min(self.cap.total_seconds(), self.base.total_seconds() * 2**doublings)
        varied = steady * (1 + self.jitter * (2 * self.chance() - 1))
        return timedelta(seconds=min(varied, self.cap.total_seconds()))


@dataclass(frozen=True, slots=True)
class Listed:
    """
    A wait for each attempt; the last one serves all that follow.

    >>> Listed((timedelta(seconds=1), timedelta(minutes=1))).delay(7)
    datetime.timedelta(seconds=60)
    """

    waits: tuple[timedelta, ...]

    def __post_init__(self) -> None:
        if not self.waits:
            raise ValueError("a listed backoff needs at least one wait")

    def delay(self, attempt: int) -> timedelta:
        """Return the wait at the attempt's place in the list."""
        return self.waits[min(attempt, len(self.waits)) - 1]


@dataclass(frozen=True, slots=True)
class Policy:
    """
    Attempts, backoff and time limits of a task.

    ``max_attempts`` counts executions in total; None takes the setting ``WORKER_QUEUE_JOB_ATTEMPTS``.
    ``soft_limit`` raises inside the handler, ``hard_limit`` ends its process and dead-letters the task; None: no limit.
    """

    max_attempts: int | None = None
    backoff: Backoff = field(default_factory=Exponential)
    soft_limit: timedelta | None = None
    hard_limit: timedelta | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError("max_attempts counts executions in total, so it is at least 1")
        if self.soft_limit and self.hard_limit and self.soft_limit >= self.hard_limit:
            raise ValueError("soft_limit must be shorter than hard_limit")
