"""Control of queues while workers run: pause, limits, counts, moving messages; effective at the next take."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import redis

from taskyard.broker.admin.queue_info import Explanation, PeekedMessage, QueueCounts, QueueLimits, read_limits
from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.runner import Keyspace, ScriptArgument, ScriptName, run_script
from taskyard.broker.transport.cancellation import cancel
from taskyard.broker.transport.queue_store import WAITING_SETS

AT_ONCE = 1000  # messages per script call
MS = timedelta(milliseconds=1)

type State = Literal["waiting", "delayed", "active", "dead"]


class MessageNotFoundError(LookupError):
    """No message of this run is in the broker: it is done, or never was."""


class MessageBusyError(RuntimeError):
    """The message is in a state in which this cannot be done to it."""


class QueueControl:
    """The queues of one prefix on one server. Every change survives restarts and applies to all workers."""

    def __init__(self, client: redis.Redis, prefix: str = "taskyard:", *, writes_events: bool = True) -> None:
        """`client` must answer with bytes (the default); `writes_events` as in the transport's options."""
        self._client = client
        self._space = Keyspace(prefix, writes_events)

    def pause(self, queue: str, by: str = "", reason: str = "", until: datetime | None = None) -> None:
        """Pause a queue; running tasks continue. `until` None: until `resume`."""
        until_ms = int(until.timestamp() * 1000) if until else ""
        self._limit(queue, paused=1, paused_by=by, reason=reason, until=until_ms)

    def resume(self, queue: str) -> None:
        """End a pause."""
        self._limit(queue, paused="", paused_by="", reason="", until="")

    def set_rate_limit(self, queue: str, limit: int | None, per: timedelta = timedelta(seconds=1)) -> None:
        """Start at most `limit` per `per`, evenly spaced, over all workers; None: no limit."""
        self._limit(queue, rate=limit or "", per=per / MS if limit else "")

    def set_key_rate_limit(self, queue: str, limit: int | None, per: timedelta = timedelta(seconds=1)) -> None:
        """As `set_rate_limit`, for each `group_key` on its own."""
        self._limit(queue, key_rate=limit or "", key_per=per / MS if limit else "")

    def set_concurrency(self, queue: str, limit: int | None) -> None:
        """Allow at most `limit` messages under a lease at once; None: no limit."""
        self._limit(queue, concurrency=limit or "")

    def set_key_concurrency(self, queue: str, limit: int | None) -> None:
        """As `set_concurrency`, for each `group_key` on its own."""
        self._limit(queue, key_concurrency=limit or "")

    def limits(self, queue: str) -> QueueLimits:
        """Return the queue's pause and limits."""
        return self.counts(queue).limits

    def counts(self, queue: str) -> QueueCounts:
        """Count the queue; O(1) whatever its length."""
        waiting, delayed, active, dead, oldest_ms, now_ms, consumers, pairs = self._run("counts", queue)
        age = timedelta(milliseconds=now_ms - oldest_ms) if oldest_ms else None
        return QueueCounts(queue, waiting, delayed, active, dead, age, consumers, read_limits(pairs, now_ms))

    def consumers(self, queue: str) -> list[bytes]:
        """Name the worker processes that took from the queue within the last lease."""
        seconds, _ = self._client.time()
        now_ms = seconds * 1000
        found: Any = self._client.zrangebyscore(f"{self._space.prefix}consumers:{queue}", now_ms, "+inf")
        return list(found)

    def peek(self, queue: str, state: State = "waiting", count: int = 10) -> list[PeekedMessage]:
        """Return the next `count` messages of that state, in order; nothing changes."""
        kinds = WAITING_SETS if state == "waiting" else (state,)
        found: list[tuple[bytes, float]] = []
        for kind in kinds:
            members: Any = self._client.zrange(f"{self._space.prefix}{kind}:{queue}", 0, count - 1, withscores=True)
            found += members
        return list(self._peeked(sorted(found, key=lambda pair: pair[1])[:count], state))

    def move(self, run_id: str, queue: str) -> None:
        """
        Move a waiting or delayed message to another queue.

        Raises:
            MessageNotFoundError: There is none.
            MessageBusyError: A worker has it, or it is dead.
        """
        self._change(run_id, self._run("move", run_id, queue))

    def promote(self, run_id: str) -> None:
        """
        End the delay of a message.

        Raises:
            MessageNotFoundError: There is none.
            MessageBusyError: It is not delayed.
        """
        self._change(run_id, self._run("move", run_id, ""))

    def remove(self, run_id: str, by: str = "", reason: str = "") -> None:
        """
        Remove a message that no worker has; the run is cancelled.

        Raises:
            MessageNotFoundError: There is none.
            MessageBusyError: A worker has it: cancel it instead.
        """
        self._change(run_id, self._run("remove", run_id, detail(by=by, reason=reason)))

    def cancel(self, run_id: str, by: str = "", reason: str = "") -> str:
        """Cancel a run; returns where its message was: waiting, delayed, active, dead or unknown."""
        return cancel(self._client, self._space, [run_id], by=by, reason=reason)[run_id]

    def drain(self, queue: str, by: str = "", reason: str = "") -> int:
        """Remove all waiting messages; returns how many."""
        return self._drain(queue, WAITING_SETS, by, reason)

    def purge(self, queue: str, by: str = "", reason: str = "") -> int:
        """Remove all waiting, delayed and dead messages; returns how many."""
        return self._drain(queue, (*WAITING_SETS, "delayed", "dead"), by, reason)

    def explain(self, run_id: str) -> Explanation:
        """
        Say why a run is not running.

        Raises:
            MessageNotFoundError: There is no message of it.
        """
        answer = self._run("explain", run_id)
        if not answer:
            raise MessageNotFoundError(f"no message of run {run_id} is in the broker: it is done, or never was sent")
        return Explanation.from_answer(run_id, answer, int(datetime.now(UTC).timestamp() * 1000))

    def _run(self, name: ScriptName, *arguments: ScriptArgument) -> Any:
        return run_script(self._client, self._space, name, *arguments)

    def _limit(self, queue: str, **fields: ScriptArgument) -> None:
        self._run("limits", queue, *(argument for pair in fields.items() for argument in pair))

    def _drain(self, queue: str, kinds: tuple[str, ...], by: str, reason: str) -> int:
        removed = 0
        while count := int(self._run("drain", queue, detail(by=by, reason=reason), AT_ONCE, *kinds)):
            removed += count
        return removed

    def _peeked(self, found: list[tuple[bytes, float]], state: State) -> Iterator[PeekedMessage]:
        pipeline: Any = self._client.pipeline(transaction=False)
        for tag, _ in found:
            pipeline.hgetall(f"{self._space.prefix}message:{tag.decode()}")
        for (tag, score), fields in zip(found, pipeline.execute(), strict=True):
            if fields:
                yield PeekedMessage.from_fields(tag.decode(), score if state != "waiting" else None, fields)

    @staticmethod
    def _change(run_id: str, answer: int) -> None:
        if answer == 0:
            raise MessageNotFoundError(f"no message of run {run_id} is in the broker: it is done, or never was sent")
        if answer < 0:
            raise MessageBusyError(f"run {run_id} is in another state: see `explain`")
