"""Event types and the patterns that endpoints subscribe with."""

import re
from collections.abc import Sequence
from typing import Any

_TYPE = re.compile(r"[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)*")
OPERATIONAL = "webhook."  # our own events about endpoints; only an explicit pattern gets them, never "*"
ENDPOINT_DISABLED = "webhook.endpoint_disabled"
ANY = "*"


class EventTypeError(ValueError):
    """Not an event type or pattern, or not one that this platform knows; the text says which are."""


def check_type(event_type: str, known: Sequence[str] = ()) -> str:
    """
    Return the event type if an app may emit it.

    Args:
        event_type: Identifiers of ``[a-zA-Z0-9_]``, separated by full stops.
        known: The types that exist; empty: any well-formed one.

    Raises:
        EventTypeError: Malformed, or not known.
    """
    given: Any = event_type  # apps call it without a type checker, too
    if not isinstance(given, str) or len(event_type) > 255 or not _TYPE.fullmatch(event_type):  # noqa: PLR2004 - the column's length
        raise EventTypeError(
            f"event type {str(event_type)[:80]!r}: use words of a-z, 0-9 and _ separated by full stops"
        )
    if known and event_type not in known and not event_type.startswith(OPERATIONAL):
        raise EventTypeError(f"unknown event type {event_type!r}; known: {', '.join(sorted(known))}")
    return event_type


def refuse_operational(event_type: str) -> None:
    """
    Refuse the platform's own event types, which apps subscribe to and do not emit.

    Raises:
        EventTypeError: It is one.
    """
    if str(event_type).startswith(OPERATIONAL):
        raise EventTypeError(
            f"event type {event_type[:80]!r}: types that begin with {OPERATIONAL} are the platform's own"
        )


def check_pattern(pattern: str, known: Sequence[str] = ()) -> str:
    """
    Return the pattern if it can match: a type, ``prefix.*`` or ``*``.

    Raises:
        EventTypeError: Malformed, or no known type fits.
    """
    if pattern == ANY:
        return pattern
    stem = pattern.removesuffix(".*")
    check_type(stem)
    fits = [name for name in known if name == pattern or (stem != pattern and name.startswith(f"{stem}."))]
    if known and not fits and not pattern.startswith(OPERATIONAL):
        raise EventTypeError(f"no known event type fits the filter {pattern!r}; known: {', '.join(sorted(known))}")
    return pattern


def patterns_for(event_type: str) -> list[str]:
    """
    Return every pattern that matches the type.

    >>> patterns_for("market.binary.resolved")
    ['market.binary.resolved', 'market.*', 'market.binary.*', '*']
    """
    words = event_type.split(".")
    prefixes = [".".join(words[:n]) + ".*" for n in range(1, len(words))]
    anything = [] if event_type.startswith(OPERATIONAL) else [ANY]
    return [event_type, *prefixes, *anything]
