"""Facts about queues and messages, as the broker reports them."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Pause and limits of a queue; None: no limit."""

    is_paused: bool
    paused_by: str
    pause_reason: str
    paused_until: datetime | None
    rate: int | None  # starts per `per`
    per: timedelta | None
    concurrency: int | None  # messages under a lease at once
    key_rate: int | None  # as above, for each group_key
    key_per: timedelta | None
    key_concurrency: int | None


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One queue at one moment."""

    queue: str
    waiting: int
    delayed: int
    active: int  # under a lease: running, or waiting inside a worker
    dead: int  # whose dead letter is not stored yet
    oldest_age: timedelta | None  # since the message first in line was put; None: nothing waits
    consumers: int  # worker processes that took from it within the last lease
    limits: QueueLimits

    @property
    def is_paused(self) -> bool:
        """Whether it is handed out."""
        return self.limits.is_paused


@dataclass(frozen=True, slots=True)
class PeekedMessage:
    """One message, unchanged."""

    run_id: str
    queue: str
    task: str | None  # None: the bytes are no envelope
    priority: int
    group_key: str | None
    attempt: int
    stalls: int
    put_at: datetime
    at: datetime | None  # due, end of the lease, or time of death; None for a waiting one
    reason: str | None  # why it is dead
    headers: dict[str, Any]
    payload: bytes

    @classmethod
    def from_fields(cls, tag: str, at_ms: float | None, fields: dict[bytes, bytes]) -> Self:
        """Read a message's hash."""
        text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        headers = _headers(fields.get(b"m", b""))
        return cls(
            run_id=text.get("i") or tag,
            queue=text.get("q", ""),
            task=headers.get("task"),
            priority=int(text.get("p", 5)),
            group_key=text.get("g"),
            attempt=int(text.get("a", 1)),
            stalls=int(text.get("s", 0)),
            put_at=_moment(int(text.get("t", 0))),
            at=_moment(at_ms) if at_ms is not None else None,
            reason=text.get("fr"),
            headers=headers,
            payload=fields.get(b"m", b""),
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a run is not running."""

    run_id: str
    state: str  # waiting, delayed, active, dead
    queue: str
    place: int | None  # in its line (its group's, if it has one), 0 is next; None: not waiting
    left: timedelta | None  # until it is due, or its lease ends
    attempt: int
    stalls: int
    cancelled_by: str | None  # JSON
    group_key: str | None
    consumers: int
    limits: QueueLimits
    reasons: tuple[str, ...]  # in words, most important first

    @classmethod
    def from_answer(cls, run_id: str, answer: list[Any], now_ms: int) -> Self:
        """Read the answer of explain.lua."""
        state, queue, place, left_ms, attempt, stalls, cancelled, group, *rest = answer
        group_wait, rate_wait, active, group_active, consumers, pairs = rest
        limits = read_limits(pairs, now_ms)
        left = timedelta(milliseconds=left_ms)
        why = _states(state.decode(), left)
        if state == b"waiting":
            why += _obstacles(queue.decode(), limits, consumers, active, rate_wait)
            why += _group_obstacles(group.decode(), limits, group_active, group_wait)
            why.append(f"{place} messages are before it in the queue" if place > 0 else "it is next in the queue")
        if cancelled:
            why.insert(0, f"it is cancelled: {cancelled.decode()}")
        return cls(
            run_id, state.decode(), queue.decode(), place if place >= 0 else None, left if left_ms else None, attempt,
            stalls, cancelled.decode() or None, group.decode() or None, consumers, limits, tuple(why),
        )  # fmt: skip


def read_limits(pairs: list[bytes] | dict[bytes, bytes], now_ms: int) -> QueueLimits:
    """Read a limits hash as a script returns it."""
    items = pairs.items() if isinstance(pairs, dict) else zip(pairs[::2], pairs[1::2], strict=True)
    text = {name.decode(): value.decode() for name, value in items}
    until_ms = int(text["until"]) if text.get("until") else None
    return QueueLimits(
        is_paused="paused" in text and not (until_ms and until_ms <= now_ms),
        paused_by=text.get("paused_by", ""),
        pause_reason=text.get("reason", ""),
        paused_until=_moment(until_ms) if until_ms else None,
        rate=_number(text, "rate"),
        per=_span(text, "per"),
        concurrency=_number(text, "concurrency"),
        key_rate=_number(text, "key_rate"),
        key_per=_span(text, "key_per"),
        key_concurrency=_number(text, "key_concurrency"),
    )


def _states(state: str, left: timedelta) -> list[str]:
    if state == "delayed":
        return [f"it is due in {left}"]
    if state == "active":
        return [f"a worker has it; its lease ends in {left} unless it is renewed"]
    return ["it is dead; its dead letter is not stored yet"] if state == "dead" else []


def _obstacles(queue: str, limits: QueueLimits, consumers: int, active: int, rate_wait_ms: int) -> list[str]:
    found = []
    if limits.is_paused:
        who = f" by {limits.paused_by}" if limits.paused_by else ""
        found.append(f"queue {queue} is paused{who}" + (f": {limits.pause_reason}" if limits.pause_reason else ""))
    if consumers == 0:
        found.append(f"no worker takes from queue {queue}")
    if limits.concurrency is not None and active >= limits.concurrency:
        found.append(f"{active} of at most {limits.concurrency} messages of the queue are being worked on")
    if limits.rate is not None and rate_wait_ms > 0:
        found.append(f"the queue's rate limit allows the next one in {rate_wait_ms} ms")
    return found


def _group_obstacles(group: str, limits: QueueLimits, active: int, wait_ms: int) -> list[str]:
    found = []
    if group and limits.key_concurrency is not None and active >= limits.key_concurrency:
        found.append(f"{active} of at most {limits.key_concurrency} messages of group {group} are being worked on")
    if group and wait_ms > 0:
        found.append(f"the rate limit of group {group} allows the next one in {wait_ms} ms")
    return found


def _headers(payload: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(payload)["headers"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def _moment(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _number(text: dict[str, str], name: str) -> int | None:
    return int(text[name]) if name in text else None


def _span(text: dict[str, str], name: str) -> timedelta | None:
    return timedelta(milliseconds=float(text[name])) if name in text else None
