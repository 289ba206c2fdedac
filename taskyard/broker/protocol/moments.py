"""Moments and durations of a message's headers in milliseconds, as the scripts take them."""

from datetime import UTC, datetime
from typing import Any

from taskyard.broker.protocol.field_checks import LONGEST_MS


def due_ms(eta: Any) -> int:
    """
    The time of an ISO 8601 `eta` header in ms since 1970, 0 for none; without a zone it is UTC.

    Raises:
        ValueError: It is not such a text.
    """
    if not eta:
        return 0
    due = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    return int((due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp() * 1000)


def duration_ms(value: Any) -> int:
    """A duration in ms, 0 for none and for what is none."""
    return value if type(value) is int and 0 < value <= LONGEST_MS else 0


def moment_ms(value: Any) -> int:
    """A moment in ms since 1970, 0 for none and for what is none: that is for the worker to say."""
    try:
        return max(0, due_ms(value))
    except (AttributeError, TypeError, ValueError, OverflowError):
        return 0
