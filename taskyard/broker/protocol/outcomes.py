"""How an execution can end for the broker: completed, rescheduled, stalled, returned or dead-lettered."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import redis
from kombu.exceptions import OperationalError

from taskyard.broker.protocol.json_codec import dump
from taskyard.broker.scripts.runner import ScriptCall

INFRASTRUCTURE_ERRORS = (
    redis.RedisError,
    OSError,
    OperationalError,
    MemoryError,
)  # not caused by a message

_OUTAGES = (redis.ConnectionError, redis.TimeoutError, redis.exceptions.NoPermissionError, OSError, MemoryError)

type FinalEvent = Literal["succeeded", "failed", "cancelled", ""]


def is_outage(error: BaseException) -> bool:
    """Whether the server is away or refuses all work, as opposed to one item that it cannot take."""
    return isinstance(error, _OUTAGES)


def detail(**facts: Any) -> str:
    """The detail of an event, as compact JSON."""
    return dump(facts)


def success_detail(runtime: float | None, result: str | None) -> str:
    """The detail of a success_detail, the most frequent event: `runtime` in seconds, `result` as text."""
    if result is None or runtime is None:
        return detail(runtime=runtime, result=result)
    return f'{{"runtime":{runtime!r},"result":{dump(result)}}}'


def cancellation_detail(reason: str, *, expired: bool) -> str:
    """The detail of a cancellation by Celery's worker; `reason` is Celery's word: expired, revoked or terminated."""
    if expired:
        return detail(reason="expired before it started")
    return detail(by="revoke", reason=None if reason == "revoked" else reason)


class BrokerLease(NamedTuple):
    """One hand-out of one message to this process."""

    queue: str
    tag: str
    number: int
    run_id: str  # "" for a message that is no task
    attempt: int
    delivery_tag: str  # what kombu knows it by


@dataclass(frozen=True, slots=True)
class Completed:
    """The message is removed and the event written ("" writes none)."""

    event: FinalEvent
    detail: str = ""

    def arguments(self, lease: BrokerLease, started: str) -> tuple[str | int, ...]:
        """The arguments of ack.lua, many go in one call; `started` is the detail of an unsent event, or ""."""
        return (lease.queue, lease.tag, lease.number, self.event, self.detail, started)


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """The same message comes back after `delay_ms`."""

    delay_ms: int
    event: Literal["retrying", "snoozed"]
    uses_attempt: bool
    detail: str = ""

    def call(self, lease: BrokerLease, max_stalls: int) -> ScriptCall:
        """The call of requeue.lua."""
        added = int(self.uses_attempt)
        last = (added, added, self.event, self.detail, max_stalls, "")
        return ScriptCall("requeue", (lease.queue, lease.tag, lease.number, "delay", self.delay_ms, *last))


@dataclass(frozen=True, slots=True)
class Stalled:
    """Its process died, or its task rejected it to run again: back to the head, dead after `max_stalls` of these."""

    detail: str
    reason: Literal["worker_lost", "rejected"] = "worker_lost"  # of the dead letter
    is_certain: bool = True  # False: its worker died with others in hand, and which of them ended it is not known

    def call(self, lease: BrokerLease, max_stalls: int) -> ScriptCall:
        """Return the call of requeue.lua."""
        return _requeue(lease, "stall" if self.is_certain else "lost", self.detail, max_stalls, self.reason)


@dataclass(frozen=True, slots=True)
class Returned:
    """It was not executed: back to the head of its priority, nothing is counted."""

    def call(self, lease: BrokerLease, max_stalls: int) -> ScriptCall:
        """Return the call of requeue.lua."""
        return _requeue(lease, "head", "", max_stalls)


@dataclass(frozen=True, slots=True)
class Requeued:
    """A consumer asked for it again: back to the head of its priority, marked as redelivered."""

    def call(self, lease: BrokerLease, max_stalls: int) -> ScriptCall:
        """Return the call of requeue.lua."""
        return _requeue(lease, "reject", "", max_stalls)


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """It must not run again: it becomes a dead letter with its bytes and these facts (JSON)."""

    reason: str
    facts: str  # error, message, traceback, runtime

    def call(self, lease: BrokerLease, max_stalls: int) -> ScriptCall:  # noqa: ARG002 - one signature for all outcomes
        """The call of bury.lua."""
        return ScriptCall("bury", (lease.queue, lease.tag, lease.number, self.reason, self.facts))


type Outcome = Completed | Rescheduled | Stalled | Returned | Requeued | DeadLettered


def _requeue(lease: BrokerLease, how: str, detail: str, max_stalls: int, reason: str = "") -> ScriptCall:
    arguments = (lease.queue, lease.tag, lease.number, how, 0, 0, 0, "", detail, max_stalls, reason)
    return ScriptCall("requeue", arguments)


def rejection(*, requeue: bool) -> Outcome:
    """Return the outcome of a message that its consumer rejected."""
    return Requeued() if requeue else Completed("failed", detail(error="Reject", message="rejected"))


def task_rejection(reason: str, *, requeue: bool) -> Outcome:
    """Return the outcome of a task that raised `Reject`; requeued it is a stall, so it cannot return for ever."""
    facts = detail(error="Reject", message=reason)
    return Stalled(facts, "rejected") if requeue else Completed("failed", facts)
