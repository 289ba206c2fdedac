"""The leases of this process: renewed by a thread of their own, ended in batches, independent of any channel."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable

import redis

from taskyard.broker.leases.acknowledgements import Outbox
from taskyard.broker.protocol.outcomes import Done, Ending, Lease, Returned
from taskyard.broker.scripts.runner import Keyspace, run

log = logging.getLogger(__name__)

LINGER = 0.02  # seconds that an ending may wait for company before the keeper thread sends it
RETRY_PAUSE = 0.5  # seconds between tries while the server is away


class Leases:
    """
    All hand-outs that this process has to answer for.

    A lease belongs to the process, not to a channel: after a reconnect it is renewed and ended through any connection.
    Thread-safe; a forked child starts with none.
    """

    def __init__(self, client: redis.Redis, space: Keyspace, lease_ms: int, max_stalls: int) -> None:
        """`client` is for this object alone, and outlives all channels; `max_stalls` -1 means never dead."""
        self._client = client
        self.space = space
        self.lease_ms = lease_ms
        self.max_stalls = max_stalls
        self.on_lost: Callable[[list[Lease]], None] | None = None  # called by the keeper thread
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._held: dict[str, Lease] = {}
        self._started: set[str] = set()  # delivery tags whose execution has begun
        self.handed: set[str] = set()  # as above, which a process has and has not yet said to have begun
        self.orphans: dict[str, None] = {}  # delivery tags whose channel is gone, in order
        self._endings: dict[str, Ending] = {}  # decided by the request class before Celery acknowledges
        self._outbox = Outbox(self.space, self.max_stalls)
        self._first_at = 0.0  # monotonic seconds of the oldest unsent ending
        self._queues: dict[str, int] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._renew_at = 0.0  # monotonic seconds
        self._is_away = False
        self._keeper: threading.Thread | None = None
        self._worker = f"{socket.gethostname()}:{self._pid}"

    def hold(self, leases: Iterable[Lease]) -> None:
        """Renew these leases from now on."""
        self._start_keeper()
        for lease in leases:
            self._held[lease.delivery_tag] = lease

    def get(self, delivery_tag: str) -> Lease | None:
        """The lease, or None when it is not (or no more) ours."""
        return self._held.get(delivery_tag)

    def start(self, delivery_tag: str) -> bool:
        """Say that its execution begins; False when the lease is gone, so that it must not."""
        with self._lock:
            if delivery_tag not in self._held:
                return False
            self._started.add(delivery_tag)
            self.handed.discard(delivery_tag)
            return True

    def hand_over(self, delivery_tag: str) -> None:
        """A process has it: it may be at work before it says so."""
        with self._lock:
            if delivery_tag in self._held and delivery_tag not in self._started:
                self.handed.add(delivery_tag)

    def listen(self, queue: str) -> None:
        """Say, while we live, that this process takes from the queue."""
        self._start_keeper()
        with self._lock:
            self._queues[queue] = self._queues.get(queue, 0) + 1
        self._renew_at = 0.0  # now, and not when the others' time has come
        self._wake.set()

    def unlisten(self, queue: str) -> None:
        """End one `listen`."""
        with self._lock:
            left = self._queues.pop(queue, 1) - 1
            if left:
                self._queues[queue] = left

    def decide(self, delivery_tag: str, ending: Ending) -> None:
        """Say how the message will end, when it will be acknowledged."""
        self._endings[delivery_tag] = ending

    def end(self, delivery_tag: str, ending: Ending | None = None) -> None:
        """End a lease as decided before, else as given, else done without an outcome; one that is not ours stays."""
        lease = self._held.pop(delivery_tag, None)
        decided = self._endings.pop(delivery_tag, None)
        self.orphans.pop(delivery_tag, None)
        self._started.discard(delivery_tag)
        self.handed.discard(delivery_tag)
        if lease is not None:
            self._outbox.end(lease, decided or ending or Done(""))
            self._hurry()

    def note_start(self, lease: Lease, detail: str) -> None:
        """Append the event that its execution began, with the next batch."""
        if self.space.writes_events:
            self._outbox.start(lease, detail)
            self._hurry()

    def note(self, event: str, lease: Lease, detail: str, *, outlives_lease: bool = False) -> None:
        """Append an event with the next batch, after those of this lease; if the lease has ended, only if it may."""
        if self.space.writes_events:
            self._outbox.note(event, lease, detail, outlives_lease=outlives_lease)
            self._hurry()

    def orphan(self, delivery_tags: Iterable[str]) -> None:
        """Their channel is gone, their work goes on."""
        self.orphans.update((tag, None) for tag in delivery_tags if tag in self._held)
        for tag in set(self.orphans) - self._held.keys():  # another thread has just ended it
            self.orphans.pop(tag, None)

    def give_back(self, delivery_tags: Iterable[str]) -> None:
        """Return messages to the head of their queues, the one that was taken first to the very head."""
        named = set(delivery_tags)
        for delivery_tag in reversed([tag for tag in list(self._held) if tag in named]):  # threads end some meanwhile
            self._endings.pop(delivery_tag, None)
            self.end(delivery_tag, Returned())

    def give_back_unstarted(self, delivery_tags: Iterable[str], *, with_handed: bool) -> None:
        """As `give_back`, but only those whose execution has not begun; from now on it cannot, but for those handed."""
        with self._lock:
            named = set(delivery_tags) - self._started - (set() if with_handed else self.handed)
            self.handed -= named
            found = [self._held.pop(tag, None) for tag in list(self._held) if tag in named]
            leases = [lease for lease in found if lease is not None]
            for lease in reversed(leases):
                self._outbox.end(lease, Returned())
        for lease in leases:
            self._endings.pop(lease.delivery_tag, None)
            self.orphans.pop(lease.delivery_tag, None)
        if leases:
            self._hurry()

    def is_told(self) -> bool:
        """Whether all that was to be sent has been; waits for a thread that is sending."""
        return self._outbox.is_told()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return self._outbox.is_empty

    def flush(self) -> None:
        """
        Send what has ended, in one round trip.

        Raises:
            redis.RedisError: The server is away; what has ended stays, and the keeper thread tries again.
        """
        if not self.is_idle:
            self.finish()

    def finish(self) -> None:
        """
        As `flush`, and wait for what another thread is sending.

        Raises:
            redis.RedisError: As `flush`.
        """
        if self._pid == os.getpid():
            self._outbox.send(self._client)

    def _hurry(self) -> None:
        if not self._wake.is_set():
            self._first_at = time.monotonic()
            self._wake.set()

    def _start_keeper(self) -> None:
        if self._pid != os.getpid():
            self._reset()
        if self._keeper is None:
            with self._lock:
                if self._keeper is None:
                    self._keeper = threading.Thread(target=self._keep, name="lease keeper", daemon=True)
                    self._keeper.start()

    def _keep(self) -> None:
        """Renew every third of a lease; send endings that the owner of the loop has no time for."""
        interval = self.lease_ms / 3000
        while True:
            woken = self._wake.wait(max(0.0, self._renew_at - time.monotonic()))
            try:
                if time.monotonic() >= self._renew_at:
                    self._renew_at = time.monotonic() + interval
                    self.renew()
                if woken:
                    time.sleep(LINGER)
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
            if time.monotonic() - self._first_at >= LINGER:
                self.flush()
            else:
                self._wake.set()

    def renew(self) -> None:
        """
        Lengthen all leases; those that were taken back are forgotten and reported to `on_lost`.

        Raises:
            redis.RedisError: The server did not answer; nothing is forgotten.
        """
        leases = list(self._held.values())
        with self._lock:
            queues = list(self._queues)
        if not leases and not queues:
            return
        words = [word for lease in leases for word in (lease.queue, lease.tag, lease.number)]
        answer = run(self._client, self.space, "renew", self.lease_ms, self._worker, len(queues), *queues, *words)
        lost = [leases[index] for index in answer if self._held.pop(leases[index].delivery_tag, None)]
        for lease in lost:
            self.orphans.pop(lease.delivery_tag, None)
            self._started.discard(lease.delivery_tag)
            self.handed.discard(lease.delivery_tag)
            log.warning("lease lost: run %s on %s was taken back", lease.run_id or lease.tag, lease.queue)
        if lost and self.on_lost is not None:
            self.on_lost(lost)
