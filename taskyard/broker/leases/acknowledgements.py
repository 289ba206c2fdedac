"""What a process has still to tell the broker of its executions: how they began and ended."""

import logging
import threading
from typing import NamedTuple

import redis

from taskyard.broker.protocol.outcomes import BrokerLease, Completed, Outcome
from taskyard.broker.scripts.runner import Keyspace, ScriptCall, run_scripts

log = logging.getLogger(__name__)

ACKS_PER_CALL = 200


class BufferedEvent(NamedTuple):
    """An event that belongs to no move of the message."""

    event: str
    lease: BrokerLease
    detail: str
    outlives_lease: bool = False  # it may be told after the end of the lease


type SettledLease = tuple[BrokerLease, Outcome]


class AcknowledgementBuffer:
    """Collects in any thread; one thread at a time sends all there is, in one round trip."""

    def __init__(self, space: Keyspace, max_stalls: int) -> None:
        """`max_stalls` -1 means never dead."""
        self._space = space
        self._max_stalls = max_stalls
        self._ended: list[SettledLease] = []
        self._notes: list[BufferedEvent] = []
        self._starts: dict[str, BufferedEvent] = {}  # by delivery tag: the start of what may end before it is sent
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent."""
        return not (self._ended or self._notes or self._starts)

    def is_flushed(self) -> bool:
        """Whether nothing waits or is on its way, from where it can come back; waits for a thread that is sending."""
        with self._sending:
            return self.is_empty

    def end(self, lease: BrokerLease, ending: Outcome) -> None:
        """Tell how an execution ended."""
        with self._lock:
            self._ended.append((lease, ending))

    def start(self, lease: BrokerLease, detail: str) -> None:
        """Tell that an execution began."""
        with self._lock:
            self._starts[lease.delivery_tag] = BufferedEvent("started", lease, detail)

    def note(self, event: str, lease: BrokerLease, detail: str, *, outlives_lease: bool = False) -> None:
        """Tell what happened in between, or after an early end."""
        note = BufferedEvent(event, lease, detail, outlives_lease)
        with self._lock:
            start = self._starts.pop(lease.delivery_tag, None)
            self._notes += [note] if start is None else [start, note]

    def send(self, client: redis.Redis) -> None:
        """
        Send all, after what another thread is sending.

        Raises:
            redis.RedisError: The server is away; what was not sent stays.
        """
        with self._sending:
            with self._lock:
                ended, self._ended = self._ended, []
                notes, self._notes = self._notes, []
                starts, self._starts = self._starts, {}
            try:
                if ended or notes or starts:
                    self._send(client, ended, notes, starts)
            except (redis.RedisError, OSError) as error:
                with self._lock:
                    self._ended[:0], self._notes[:0] = ended, notes
                    self._starts = starts | self._starts
                log.debug("%d endings wait for the broker: %s", len(ended), error)
                raise

    def _send(
        self,
        client: redis.Redis,
        ended: list[SettledLease],
        notes: list[BufferedEvent],
        starts: dict[str, BufferedEvent],
    ) -> None:
        done = [(lease, ending) for lease, ending in ended if isinstance(ending, Completed)]
        chunks = [done[start : start + ACKS_PER_CALL] for start in range(0, len(done), ACKS_PER_CALL)]
        others = [(lease, ending) for lease, ending in ended if not isinstance(ending, Completed)]
        over = {lease.delivery_tag for lease, _ in done}
        notes = notes + [start for tag, start in starts.items() if tag not in over]
        calls = [_notes_call(notes)] if notes else []
        calls += [_ack_call(chunk, starts) for chunk in chunks]
        calls += [ending.call(lease, self._max_stalls) for lease, ending in others]
        answers = run_scripts(client, self._space, calls)[len(calls) - len(chunks) - len(others) :]
        lost = [chunk[index][0] for chunk, answer in zip(chunks, answers, strict=False) for index in answer]
        lost += [lease for (lease, _), answer in zip(others, answers[len(chunks) :], strict=True) if not answer]
        for lease in lost:  # also said once too often when the answer to an earlier try was lost
            log.warning(
                "late answer refused: run %s on %s, lease %d had ended",
                lease.run_id or lease.tag,
                lease.queue,
                lease.number,
            )


def _ack_call(done: list[tuple[BrokerLease, Completed]], starts: dict[str, BufferedEvent]) -> ScriptCall:
    arguments: list[str | int] = []
    for lease, ending in done:
        start = starts.get(lease.delivery_tag)
        arguments += ending.arguments(lease, "" if start is None else start.detail)
    return ScriptCall("ack", tuple(arguments))


def _notes_call(notes: list[BufferedEvent]) -> ScriptCall:
    arguments: list[str | int] = []
    for event, lease, detail, outlives_lease in notes:
        tag = "" if outlives_lease else lease.tag
        arguments += (event, lease.run_id, lease.queue, lease.attempt, detail, tag, lease.number)
    return ScriptCall("note", tuple(arguments))
