"""Run events: entries of the event stream, validated and bounded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from taskyard.broker.protocol.json_codec import load
from taskyard.broker.scripts.shared_names import EVENT_KINDS
from taskyard.history.writer.truncation import ERROR_BYTES, RESULT_BYTES, TRACEBACK_BYTES, clip, clip_middle

GROUP = "audit"  # consumer group of the writers
CONSUMER = "writer"  # one name for all: only the holder of the lease reads, and it takes over what the last one left
NOTES = ("logged", "progress")  # said by a handler while it runs: they change no state
KINDS = frozenset((*EVENT_KINDS, *NOTES))
MAX_ID = 155  # characters of a run id
MAX_NAME = 255
LARGEST = 2**31 - 1  # of an integer column
LONGEST = timedelta(days=3650)  # a longer delay in an event is cut


class MalformedEventError(ValueError):
    """The entry does not follow the format; the text says where."""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One transition of one run."""

    id: str  # of the stream entry, padded so that text order is stream order
    kind: str  # one of KINDS
    run_id: str
    queue: str
    attempt: int  # from 1
    at: datetime  # the broker's clock
    detail: Mapping[str, Any]  # depends on the kind; not bounded: read it through the methods below

    def text(self, name: str, limit: int = MAX_NAME) -> str | None:
        """Return a fact as text of at most `limit` bytes; None: not given."""
        value = self.detail.get(name)
        if value is None or value == "":
            return None
        return clip(value if isinstance(value, str) else json.dumps(value, default=str), limit)

    def number(self, name: str) -> float | None:
        """Return a fact as a number; None: not given, or not a number."""
        value = self.detail.get(name)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            return None

    def moment(self, name: str) -> datetime | None:
        """Return a fact, ISO text or epoch milliseconds, as a moment in UTC; None: not given, or neither."""
        value = self.detail.get(name)
        try:
            if isinstance(value, str) and value:
                parsed = datetime.fromisoformat(value)
                return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
            return _moment(int(value)) if isinstance(value, int | float) else None
        except (ValueError, OverflowError):
            return None

    def after_delay(self) -> datetime | None:
        """Return the moment `delay` (seconds) after the event; None: no delay given."""
        delay = self.number("delay")
        if delay is None:
            return None
        try:
            return self.at + min(max(timedelta(seconds=delay), timedelta(0)), LONGEST)
        except (ValueError, OverflowError):
            return self.at + LONGEST

    @property
    def runtime_ms(self) -> int | None:
        """How long the handler ran."""
        seconds = self.number("runtime")
        return None if seconds is None or not 0 <= seconds < LARGEST / 1000 else round(seconds * 1000)

    @property
    def error_message(self) -> str | None:
        """The error's text, bounded."""
        return self.text("message", ERROR_BYTES)

    @property
    def traceback(self) -> str | None:
        """The traceback, bounded."""
        given = self.detail.get("traceback")
        return clip_middle(str(given), TRACEBACK_BYTES) if given else None

    @property
    def result(self) -> str | None:
        """What the handler returned, as bounded text."""
        return self.text("result", RESULT_BYTES)


def stream_key(prefix: str) -> str:
    """Return the key of the event stream."""
    return f"{prefix}events"


def read_event(entry_id: bytes, fields: Mapping[bytes, bytes]) -> HistoryEvent:
    """
    Turn a stream entry into an event.

    Raises:
        MalformedEventError: A field is missing or holds no such value.
    """
    try:
        detail = load(fields.get(b"d") or b"{}")
        event = HistoryEvent(
            id=padded(entry_id.decode()),
            kind=fields[b"e"].decode(),
            run_id=clip(fields[b"id"].decode(errors="replace"), MAX_ID),
            queue=clip(fields[b"q"].decode(errors="replace"), MAX_NAME),
            attempt=min(max(int(fields.get(b"n") or 1), 1), LARGEST),
            at=_moment(int(fields[b"at"])),
            detail=detail if isinstance(detail, dict) else {},
        )
    except KeyError as error:
        raise MalformedEventError(f"no field {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise MalformedEventError(str(error)) from error
    if event.kind not in KINDS:
        raise MalformedEventError(f"unknown kind {event.kind!r}")
    if not event.run_id:
        raise MalformedEventError("no run id")
    return event


def padded(entry_id: str) -> str:
    """
    Pad a stream id so that the order of texts is the order of the stream.

    >>> padded("1700000000000-7")
    '01700000000000-0000000007'
    """
    milliseconds, _, sequence = entry_id.partition("-")
    return f"{int(milliseconds):014d}-{int(sequence or 0):010d}"


def _moment(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OSError, OverflowError, ValueError) as error:
        raise MalformedEventError(f"{milliseconds} ms is no moment") from error
