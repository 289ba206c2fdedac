"""Decide what an answer means for a delivery, and when its next attempt comes. Pure functions."""

import math
import random
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from taskyard.webhooks.http.response import Answer, ErrorCode

DEFAULT_SCHEDULE: Final[tuple[timedelta, ...]] = (
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
)  # five waits, so six attempts
JITTER: Final = 0.2  # of the scheduled wait, either way
RETRY_AFTER_CAP: Final = timedelta(hours=24)
OVERLOAD_FLOOR: Final = timedelta(seconds=60)

GONE_STATUS: Final = 410
_OVERLOADED: Final = frozenset({429, 502, 503, 504})
_PAUSING: Final = frozenset({429, 503})
_LATE: Final = frozenset({ErrorCode.TIMEOUT_CONNECT, ErrorCode.TIMEOUT_TOTAL})
# A wrong registration: worth a few tries, as DNS or a certificate may be in the middle of a change.
_HOPELESS: Final = frozenset(
    {
        ErrorCode.BLOCKED_ADDRESS,
        ErrorCode.INVALID_URL,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.UNSIGNED,
        ErrorCode.TLS_NAME_MISMATCH,
    }
)
_HOPELESS_ATTEMPTS: Final = 3


class AttemptResult(StrEnum):
    """What an attempt means for its delivery."""

    SUCCESS = "success"
    RETRY = "retry"  # on schedule
    RETRY_WITH_FLOOR = "retry_with_floor"  # on schedule, but not before the floor: the receiver is overloaded
    GONE = "gone"  # never again, and the endpoint is to be disabled
    TERMINAL = "terminal"  # never again


def classify(answer: Answer, attempt: int = 1, terminal_statuses: Collection[int] = ()) -> AttemptResult:
    """
    Tell what `answer` means.

    Only 2xx is success; a redirect is a failure like another. 4xx are retried, since receivers deploy broken builds.
    A blocked address, a bad URL or a certificate for another name ends the delivery on its third attempt.

    Args:
        answer: What came of the request.
        attempt: Which attempt it was, from 1.
        terminal_statuses: Status codes that end a delivery at once, as set by the operator.

    Source: Standard Webhooks 1.0.0, "Deliverability and reliability".
    """
    if answer.is_success:
        return AttemptResult.SUCCESS
    if answer.status == GONE_STATUS:
        return AttemptResult.GONE
    if answer.status in terminal_statuses or (answer.error in _HOPELESS and attempt >= _HOPELESS_ATTEMPTS):
        return AttemptResult.TERMINAL
    if answer.status in _OVERLOADED or answer.error in _LATE:
        return AttemptResult.RETRY_WITH_FLOOR
    return AttemptResult.RETRY


def pause_asked(answer: Answer, now: datetime, cap: timedelta = RETRY_AFTER_CAP) -> timedelta | None:
    """Return for how long the whole endpoint should be left alone: a 429 or 503 with a usable Retry-After."""
    return parse_retry_after(answer.retry_after, now, cap) if answer.status in _PAUSING else None


def parse_retry_after(raw: str | None, now: datetime, cap: timedelta = RETRY_AFTER_CAP) -> timedelta | None:
    """
    Read a Retry-After header: seconds (fractions are rounded up) or an HTTP date; None if it says nothing usable.

    Never longer than `cap`; zero, the past and garbage are None.

    Source: RFC 9110, 10.2.3.

    >>> parse_retry_after("1.5", datetime(2026, 1, 1, tzinfo=UTC))
    datetime.timedelta(seconds=2)
    """
    text = (raw or "").strip()
    seconds = _seconds(text) if text[:1].isdigit() else _seconds_until(text, now)
    if seconds is None or seconds <= 0:
        return None
    return timedelta(seconds=math.ceil(min(seconds, cap.total_seconds())))


def next_delay(
    attempt: int,
    schedule: Sequence[timedelta] = DEFAULT_SCHEDULE,
    jitter_source: Callable[[], float] = random.random,
    *,
    at_least: timedelta = timedelta(0),
    jitter: float = JITTER,
) -> timedelta | None:
    """
    Return how long to wait after failed attempt number `attempt` (from 1), or None when it was the last.

    The scheduled wait varies by `jitter` either way, then gives way to a longer `at_least`.

    Args:
        attempt: How many attempts were made.
        schedule: The waits between attempts; attempts in all are one more.
        jitter_source: Gives numbers from 0 to 1.
        at_least: What the receiver asked for (`parse_retry_after`), or the floor of `AttemptResult.RETRY_WITH_FLOOR`.
        jitter: The share of the scheduled wait by which it varies, 0-1.

    Raises:
        ValueError: `attempt` is below 1.

    >>> next_delay(1, jitter_source=lambda: 0.5), next_delay(6)
    (datetime.timedelta(seconds=30), None)
    """
    if attempt < 1:
        raise ValueError(f"attempts count from 1, got {attempt}")
    if attempt > len(schedule):
        return None
    return max(schedule[attempt - 1] * (1 + jitter * (2 * jitter_source() - 1)), at_least)


def _seconds(text: str) -> float | None:
    if len(text) > 20 or not text.isascii() or not text.replace(".", "", 1).isdigit():  # noqa: PLR2004  any real wait fits
        return None
    return float(text)


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):  # what the parser lets out on malformed dates
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # HTTP dates are GMT, whatever they forget to say
    return (moment - now).total_seconds()
