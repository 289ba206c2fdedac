"""The leases of this process: renewed by a thread, settled in batches, independent of any channel."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable

import redis

from taskyard.broker.leases.acknowledgements import AcknowledgementBuffer
from taskyard.broker.protocol.outcomes import BrokerLease, Outcome, Returned, Stalled
from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.scripts.shared_names import EventKind

log = logging.getLogger(__name__)

BATCH_DELAY = 0.02  # seconds that an outcome may wait for others before the thread sends it
RETRY_PAUSE = 0.5  # seconds between tries while the server is away


class LeaseManager:
    """
    All leases of this process.

    A lease belongs to the process, not to a channel: after a reconnect it is renewed and settled by any connection.
    Thread-safe; a forked child starts with none.
    """

    def __init__(self, client: redis.Redis, space: Keyspace, lease_ms: int, max_stalls: int) -> None:
        """`client` is not shared, and outlives all channels; `max_stalls` -1 means never dead."""
        self._client = client
        self.space = space
        self.lease_ms = lease_ms
        self.max_stalls = max_stalls
        self.holds_suspects = False  # whether what lost a worker before waits here until it can run alone
        self.on_lost: Callable[[list[BrokerLease]], None] | None = None  # called by the lease thread
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._leases: dict[str, BrokerLease] = {}
        self._started: set[str] = set()  # delivery tags whose execution has begun
        self.dispatched: set[str] = set()  # dispatched to a pool process that has not reported a start
        self.orphans: dict[str, None] = {}  # delivery tags whose channel is gone, in order
        self._buffer = AcknowledgementBuffer(self.space, self.max_stalls)
        self._first_at = 0.0  # monotonic seconds of the oldest unsent outcome
        self._queues: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._renew_at = 0.0  # monotonic seconds
        self._is_away = False
        self._sender: threading.Thread | None = None
        self.worker = self.holder = f"{socket.gethostname()}:{self._pid}"

    def add(self, leases: Iterable[BrokerLease]) -> None:
        """Renew these leases from now on."""
        self._start_sender()
        for lease in leases:
            self._leases[lease.delivery_tag] = lease

    def get(self, delivery_tag: str) -> BrokerLease | None:
        """The lease, or None when it is not (or no more) ours."""
        return self._leases.get(delivery_tag)

    def start(self, delivery_tag: str, detail: str) -> bool:
        """Record that the execution begins; False when the lease is gone, so that it must not."""
        with self._lock:
            lease = self._leases.get(delivery_tag)
            if lease is None:
                return False
            self._started.add(delivery_tag)
            self.dispatched.discard(delivery_tag)
        if self.space.writes_events:
            self._buffer.start(lease, detail)
            self._wake_sender()
        return True

    def in_hand(self) -> str:
        """Return what take.lua is told of the messages here: "" for none, the tag of the only one, "*" for several."""
        leases = list(self._leases.values())
        return "*" if len(leases) > 1 else "".join(lease.tag for lease in leases)

    def hold_back(self, delivery_tag: str) -> None:
        """
        Say that a message is not alone in this worker, whose death is then not counted as a stall of it.

        Raises:
            redis.RedisError: The server is away.
        """
        lease = self._leases.get(delivery_tag)
        if lease is not None:
            self._client.hset(self.space.message(lease.tag), "h", lease.number)

    def let_go(self, delivery_tag: str) -> None:
        """
        Say that a message which was held back runs alone: from here on the worker's death counts.

        What ended before is told first, so that a neighbour's success does not die with the worker.

        Raises:
            redis.RedisError: The server is away.
        """
        lease = self._leases.get(delivery_tag)
        if lease is not None:
            self.flush_and_wait()
            self._client.hdel(self.space.message(lease.tag), "h")

    def mark_dispatched(self, delivery_tag: str) -> None:
        """Note that a pool process has it and may have started it."""
        with self._lock:
            if delivery_tag in self._leases and delivery_tag not in self._started:
                self.dispatched.add(delivery_tag)

    def register_consumer(self, queue: str) -> None:
        """Announce, while this process lives, that it consumes the queue."""
        self._start_sender()
        with self._lock:
            self._queues[queue] = self._queues.get(queue, 0) + 1
        self._renew_at = 0.0  # now, and not when the others' time has come
        self._wake.set()

    def unregister_consumer(self, queue: str) -> None:
        """End one `register_consumer`."""
        with self._lock:
            left = self._queues.pop(queue, 1) - 1
            if left:
                self._queues[queue] = left

    def settle(self, delivery_tag: str, outcome: Outcome) -> None:
        """End a lease with the next batch; nothing happens if this process no longer has it."""
        lease = self._leases.pop(delivery_tag, None)
        self.orphans.pop(delivery_tag, None)
        self._started.discard(delivery_tag)
        self.dispatched.discard(delivery_tag)
        if lease is not None:
            self._buffer.settle(lease, outcome)
            self._wake_sender()

    def note(self, event: EventKind, lease: BrokerLease, detail: str, *, outlives_lease: bool = False) -> None:
        """Append an event with the next batch, after those of this lease; if the lease has ended, only if it may."""
        if self.space.writes_events:
            self._buffer.note(event, lease, detail, outlives_lease=outlives_lease)
            self._wake_sender()

    def orphan(self, delivery_tags: Iterable[str]) -> None:
        """Note that their channel is gone while their work continues."""
        self.orphans.update((tag, None) for tag in delivery_tags if tag in self._leases)
        for tag in set(self.orphans) - self._leases.keys():  # another thread has just ended it
            self.orphans.pop(tag, None)

    def return_messages(self, delivery_tags: Iterable[str]) -> None:
        """Return messages to the head of their queues, the one that was taken first to the very head."""
        named = set(delivery_tags)
        for delivery_tag in reversed([tag for tag in list(self._leases) if tag in named]):  # threads settle, too
            self.settle(delivery_tag, Returned())

    def stall_started(self, delivery_tags: Iterable[str], facts: str) -> None:
        """Settle all whose execution has begun, or may have begun, as stalled by an error of this worker."""
        started = [tag for tag in delivery_tags if tag in self._started or tag in self.dispatched]
        for tag in started:
            self.settle(tag, Stalled(facts, is_certain=len(started) == 1))

    def return_unstarted(self, delivery_tags: Iterable[str], *, with_dispatched: bool) -> None:
        """As `give_back`, but only those whose execution has not begun; from now on it cannot, but for those handed."""
        with self._lock:
            named = set(delivery_tags) - self._started - (set() if with_dispatched else self.dispatched)
            self.dispatched -= named
            found = [self._leases.pop(tag, None) for tag in list(self._leases) if tag in named]
            leases = [lease for lease in found if lease is not None]
            for lease in reversed(leases):
                self._buffer.settle(lease, Returned())
        for lease in leases:
            self.orphans.pop(lease.delivery_tag, None)
        if leases:
            self._wake_sender()

    def is_flushed(self) -> bool:
        """Whether everything was sent; waits for a thread that is sending."""
        return self._buffer.is_flushed()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._buffer.is_empty

    def flush(self) -> None:
        """
        Send all outcomes in one round trip.

        Raises:
            redis.RedisError: The server is away; the outcomes stay, and the lease thread tries again.
        """
        if not self.is_idle:
            self.flush_and_wait()

    def flush_and_wait(self) -> None:
        """
        As `flush`, and wait for what another thread is sending.

        Raises:
            redis.RedisError: As `flush`.
        """
        if self._pid == os.getpid():
            self._buffer.send(self._client)

    def _wake_sender(self) -> None:
        if not self._wake.is_set():
            self._first_at = time.monotonic()
            self._wake.set()

    def _start_sender(self) -> None:
        if self._pid != os.getpid():
            self._reset()
        if self._sender is None:
            with self._lock:
                if self._sender is None:
                    self._sender = threading.Thread(target=self._run_sender, name="leases", daemon=True)
                    self._sender.start()

    def _run_sender(self) -> None:
        """Renew every third of a lease; send outcomes when the loop is too busy to."""
        interval = self.lease_ms / 3000
        while True:
            woken = self._wake.wait(max(0.0, self._renew_at - time.monotonic()))
            try:
                if time.monotonic() >= self._renew_at:
                    self._renew_at = time.monotonic() + interval
                    self.renew()
                if woken:
                    time.sleep(BATCH_DELAY)
                    self._wake.clear()
                    self._flush_old()
                self._is_away = False
            except (redis.RedisError, OSError) as error:
                if not self._is_away:  # once per outage
                    log.warning("the broker does not answer, leases are renewed later: %s", error)
                self._is_away = True
                time.sleep(min(RETRY_PAUSE, interval / 3))
                self._renew_at = min(self._renew_at, time.monotonic())
                self._wake.set()

    def _flush_old(self) -> None:
        if not self.is_idle:
            if time.monotonic() - self._first_at >= BATCH_DELAY:
                self.flush()
            else:
                self._wake.set()

    def renew(self) -> None:
        """
        Renew all leases; those that were taken back are dropped and reported to `on_lost`.

        Raises:
            redis.RedisError: The server did not answer; nothing is forgotten.
        """
        leases = list(self._leases.values())
        with self._lock:
            queues = list(self._queues)
        if not leases and not queues:
            return
        arguments = [argument for lease in leases for argument in (lease.queue, lease.tag, lease.number)]
        answer = run_script(
            self._client, self.space, "renew", self.lease_ms, self.worker, len(queues), *queues, *arguments
        )
        lost = [leases[index] for index in answer if self._leases.pop(leases[index].delivery_tag, None)]
        for lease in lost:
            self.orphans.pop(lease.delivery_tag, None)
            self._started.discard(lease.delivery_tag)
            self.dispatched.discard(lease.delivery_tag)
            log.warning("lease lost: run %s on %s was taken back", lease.run_id or lease.tag, lease.queue)
        if lost and self.on_lost is not None:
            self.on_lost(lost)
