"""What a process has still to tell the broker about its executions: how they began and how they ended."""

import logging
import threading
from typing import NamedTuple

import redis

from taskyard.broker.protocol.outcomes import (
    INFRASTRUCTURE_ERRORS,
    BrokerLease,
    Completed,
    DeadLettered,
    Outcome,
    detail,
    is_outage,
)
from taskyard.broker.scripts.runner import Keyspace, ScriptCall, run_scripts
from taskyard.broker.scripts.shared_names import EventKind

log = logging.getLogger(__name__)

ACKS_PER_CALL = 200
UNSENDABLE = (redis.RedisError, TypeError, ValueError)  # what a single item can cause: a wrong type, a text no text


class BufferedEvent(NamedTuple):
    """An event that belongs to no transition of the message."""

    kind: EventKind
    lease: BrokerLease
    detail: str
    outlives_lease: bool = False  # it may be written after the end of the lease


class SettledLease(NamedTuple):
    """One lease and how its execution ended."""

    lease: BrokerLease
    outcome: Outcome


class _Batch(NamedTuple):
    """What is sent in one round trip."""

    settled: list[SettledLease]
    events: list[BufferedEvent]
    starts: dict[str, BufferedEvent]  # by delivery tag: `started` events, written by the ack of the same lease if any


class AcknowledgementBuffer:
    """Collects from any thread; one thread at a time sends everything in one round trip."""

    def __init__(self, space: Keyspace, max_stalls: int) -> None:
        """`max_stalls` -1 means never dead."""
        self._space = space
        self._max_stalls = max_stalls
        self._batch = _Batch([], [], {})
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent."""
        return not any(self._batch)

    def is_flushed(self) -> bool:
        """Whether everything has reached the broker; waits for a thread that is sending."""
        with self._sending:
            return self.is_empty

    def settle(self, lease: BrokerLease, outcome: Outcome) -> None:
        """Buffer how an execution ended."""
        with self._lock:
            self._batch.settled.append(SettledLease(lease, outcome))

    def start(self, lease: BrokerLease, detail: str) -> None:
        """Buffer that an execution began."""
        with self._lock:
            self._batch.starts[lease.delivery_tag] = BufferedEvent("started", lease, detail)

    def note(self, kind: EventKind, lease: BrokerLease, detail: str, *, outlives_lease: bool = False) -> None:
        """Buffer an event between start and end, or after an early acknowledgement."""
        event = BufferedEvent(kind, lease, detail, outlives_lease)
        with self._lock:
            start = self._batch.starts.pop(lease.delivery_tag, None)
            self._batch.events.extend([event] if start is None else [start, event])

    def send(self, client: redis.Redis) -> None:
        """
        Send everything, after what another thread is sending.

        Raises:
            redis.RedisError: The server is away; what was not sent stays.
        """
        with self._sending:
            with self._lock:
                batch, self._batch = self._batch, _Batch([], [], {})
            if not any(batch):
                return
            try:
                self._send(client, batch)
            except INFRASTRUCTURE_ERRORS as error:
                with self._lock:
                    newer = self._batch
                    self._batch = _Batch(
                        batch.settled + newer.settled, batch.events + newer.events, batch.starts | newer.starts
                    )
                log.debug("%d outcomes wait for the broker: %s", len(batch.settled), error)
                raise

    def _send(self, client: redis.Redis, batch: _Batch) -> None:
        try:
            self._send_together(client, batch)
        except UNSENDABLE as error:
            if is_outage(error):
                raise
            log.warning("a batch of %d outcomes cannot be sent, each goes alone: %s", len(batch.settled), error)
            self._send_one_by_one(client, batch)

    def _send_one_by_one(self, client: redis.Redis, batch: _Batch) -> None:
        """Send each outcome alone; one that cannot be sent is replaced by a dead letter that says why."""
        for event in batch.events:
            self._try_alone(client, _Batch([], [event], {}))
        for lease, outcome in batch.settled:
            tag = lease.delivery_tag
            starts = {tag: batch.starts.pop(tag)} if tag in batch.starts else {}
            error = self._try_alone(client, _Batch([SettledLease(lease, outcome)], [], starts))
            if error is not None:
                facts = detail(error=type(error).__name__, message=f"the outcome could not be sent: {error!r}")
                self._try_alone(client, _Batch([SettledLease(lease, DeadLettered("unsendable", facts))], [], {}))
        for tag, start in batch.starts.items():
            self._try_alone(client, _Batch([], [], {tag: start}))

    def _try_alone(self, client: redis.Redis, item: _Batch) -> Exception | None:
        """Send one item; returns why it cannot be sent."""
        try:
            self._send_together(client, item)
        except UNSENDABLE as error:
            if is_outage(error):
                raise
            log.exception("an outcome or event cannot be sent: %s", item)
            return error
        return None

    def _send_together(self, client: redis.Redis, batch: _Batch) -> None:
        acks = [(lease, outcome) for lease, outcome in batch.settled if isinstance(outcome, Completed)]
        chunks = [acks[start : start + ACKS_PER_CALL] for start in range(0, len(acks), ACKS_PER_CALL)]
        others = [(lease, outcome) for lease, outcome in batch.settled if not isinstance(outcome, Completed)]
        acked = {lease.delivery_tag for lease, _ in acks}
        events = batch.events + [start for tag, start in batch.starts.items() if tag not in acked]
        calls = [_note_call(events)] if events else []
        calls += [_ack_call(chunk, batch.starts) for chunk in chunks]
        calls += [outcome.call(lease, self._max_stalls) for lease, outcome in others]
        answers = run_scripts(client, self._space, calls)[len(calls) - len(chunks) - len(others) :]
        lost = [chunk[index][0] for chunk, answer in zip(chunks, answers, strict=False) for index in answer]
        lost += [lease for (lease, _), answer in zip(others, answers[len(chunks) :], strict=True) if not answer]
        for lease in lost:  # also logged when the answer to an earlier try was lost
            run = lease.run_id or lease.tag
            log.warning("late answer refused: run %s on %s, lease %d had ended", run, lease.queue, lease.number)


def _ack_call(acks: list[tuple[BrokerLease, Completed]], starts: dict[str, BufferedEvent]) -> ScriptCall:
    arguments: list[str | int] = []
    for lease, outcome in acks:
        start = starts.get(lease.delivery_tag)
        arguments += outcome.arguments(lease, "" if start is None else start.detail)
    return ScriptCall("ack", tuple(arguments))


def _note_call(events: list[BufferedEvent]) -> ScriptCall:
    arguments: list[str | int] = []
    for kind, lease, facts, outlives_lease in events:
        tag = "" if outlives_lease else lease.tag
        arguments += (kind, lease.run_id, lease.queue, lease.attempt, facts, tag, lease.number)
    return ScriptCall("note", tuple(arguments))
