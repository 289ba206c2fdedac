"""Events as the broker's scripts append them, for tests of the writer."""

import json
from typing import Any

import redis

from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.history.events import stream_key

PREFIX = "taskyard:"
BEGIN_MS = 1_790_000_000_000
DETAILS: dict[str, dict[str, Any]] = {
    "queued": {"task": "records.greet", "args": {"name": "Ada", "token": "***"}, "priority": 5},
    "scheduled": {"task": "records.greet", "args": {"name": "Ada"}, "priority": 5, "eta": "2026-09-21T15:00:00+00:00"},
    "started": {"worker": "celery@host", "pid": 4711},
    "retrying": {"error": "TimeoutError", "message": "after 3 s", "traceback": None, "delay": 2.0, "runtime": 0.5},
    "snoozed": {"delay": 1.5, "runtime": 0.01, "reason": "the lane is full"},
    "succeeded": {"runtime": 0.25, "result": '"hello Ada"'},
    "failed": {"error": "ValueError", "message": "no such order 17", "traceback": "...", "runtime": 0.1},
    "stalled": {"stalls": 1},
    "cancelled": {"by": "ada", "reason": "not wanted"},
}


def append(  # noqa: PLR0913 - the fields of an event
    client: redis.Redis,
    kind: str,
    run_id: str,
    *,
    attempt: int = 1,
    after_ms: int = 0,
    prefix: str = PREFIX,
    **facts: Any,
) -> None:
    """Append one event; `after_ms` counts from a fixed begin."""
    fields: dict[Any, Any] = {
        "e": kind,
        "id": run_id,
        "q": "celery",
        "n": attempt,
        "at": BEGIN_MS + after_ms,
        "d": json.dumps(DETAILS.get(kind, {}) | facts),
    }
    client.xadd(stream_key(prefix), fields)


def append_life(client: redis.Redis, run_id: str, *, prefix: str = PREFIX) -> None:
    """Append the events of a run that fails once and then succeeds."""
    append(client, "queued", run_id, prefix=prefix)
    append(client, "started", run_id, after_ms=100, prefix=prefix)
    append(client, "retrying", run_id, after_ms=600, prefix=prefix)
    append(client, "started", run_id, attempt=2, after_ms=2700, prefix=prefix)
    append(client, "succeeded", run_id, attempt=2, after_ms=2950, prefix=prefix)


def append_many(client: redis.Redis, runs: int) -> None:
    """Append that many enqueues, a thousand at once."""
    space = Keyspace(PREFIX, writes_events=True)
    for begin in range(0, runs, 1000):
        ids = (f"run-{number}" for number in range(begin, begin + 1000))
        words = [word for each in ids for word in ("queued", each, "celery", 1, '{"task":"t"}', "", 0)]
        run_script(client, space, "note", *words)
