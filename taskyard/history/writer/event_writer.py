"""
The history writer: moves the event stream into SQL in batches, and trims from the stream only what is committed.

One writer is active at a time, the holder of a lease in Redis; the others stand by. All read as the same consumer of
the group, so a new holder first gets what the previous one read but did not acknowledge. If the lease is lost during a
write, two writers briefly apply the same entries: the database serialises them, and applying twice changes nothing.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any

import structlog
from redis import Redis, RedisError, ResponseError
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError, StatementError

from taskyard.broker.scripts.runner import ALLOW_OOM
from taskyard.history.events import CONSUMER, GROUP, HistoryEvent, MalformedEventError, read_event, stream_key
from taskyard.history.writer.upsert import write_events
from taskyard.history.writer.writer_lease import WriterLease

log = structlog.get_logger("taskyard.history.writer.event_writer")

type Entry = tuple[bytes, Mapping[bytes, bytes]]
type Parsed = tuple[Entry, HistoryEvent]
type Delegate = Callable[[str, threading.Event], bool]  # see `taskyard.history.writer.helper_process.WriterHelper.work`

REFUSED_KEPT = 1000  # entries that could not be written, kept for inspection

# Make the stream and its group; an error that begins with BUSYGROUP: they are there. KEYS[1] stream. ARGV[1]: group.
OPEN_GROUP = ALLOW_OOM + "return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')"

# Append an entry and keep the newest. KEYS[1] stream. ARGV[1]: entries to keep. ARGV[2...]: fields and their values.
PUT_ASIDE = ALLOW_OOM + "return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 2))"

# Acknowledge entries, and trim the stream up to the first one that is not written: nobody else ever trims it.
# KEYS[1] stream. ARGV[1]: group. ARGV[2...]: ids of entries that are committed.
ACKNOWLEDGE = """
for first = 2, #ARGV, 1000 do
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
local milliseconds, sequence = string.match(ARGV[#ARGV], '(%d+)-(%d+)')
local first_kept = redis.call('XPENDING', KEYS[1], ARGV[1])[2] or string.format('%s-%.0f', milliseconds, sequence + 1)
return redis.call('XTRIM', KEYS[1], 'MINID', first_kept)
"""


@dataclass(frozen=True, slots=True)
class WriterTuning:
    """Batch sizes, intervals and limits of the writer."""

    batch: int = 2000  # entries of one transaction at most
    block: timedelta = timedelta(milliseconds=500)  # longest wait for the first entry; bounds the time to stop
    gather: timedelta = timedelta(milliseconds=100)  # pause after a batch that was not full: fewer transactions
    lease: timedelta = timedelta(seconds=10)  # after a crash another writer starts within this and `standby`
    standby: timedelta = timedelta(seconds=2)  # how often a standby writer asks for the lease
    longest_pause: timedelta = timedelta(seconds=5)  # between retries while Redis or the database is down
    share: float = 1.0  # of a CPU, 0-1, that it may use while the backlog is small
    busy: int = 5000  # backlog in events from which the delegate writes instead
    hurry: int = 50_000  # backlog in events from which it ignores `share`
    idle: timedelta | None = None  # stops after this long without events; None: never


BESIDE_WORK = WriterTuning(batch=500, share=0.05)
LONGEST_REST = 2.0  # seconds after a batch; well below the lease


class EventWriter:
    """Writes events from the stream to SQL until stopped."""

    def __init__(  # noqa: PLR0913 - where from, where to, and how
        self,
        client: Redis,
        engine: Engine,
        prefix: str,
        tuning: WriterTuning | None = None,
        *,
        token: str | None = None,
        delegate: Delegate | None = None,
    ) -> None:
        """
        Make a writer; no I/O yet.

        Args:
            client: A Redis client that returns bytes.
            engine: The database.
            prefix: Of every key.
            tuning: None takes the defaults.
            token: Of a lease shared with another process; None: a lease of its own.
            delegate: Writes instead while the backlog is large; None: nobody does.
        """
        self._redis: Any = client
        self._engine = engine
        self._stream = stream_key(prefix)
        self._refused = f"{self._stream}:refused"
        self._tuning = tuning or WriterTuning()
        self._lease = WriterLease(client, f"{self._stream}:writer", self._tuning.lease, token)
        self._delegate = delegate
        self._stop = threading.Event()
        self._is_leading = False
        self._next = ">"  # "0": entries that the previous lease holder read but did not acknowledge
        self._failures = 0  # in a row
        self._last_entries = time.monotonic()

    def run(self) -> None:
        """Write until `stop` is called, through any outage."""
        while not self._stop.is_set():
            try:
                self._turn()
            except (RedisError, OSError) as error:
                self._pause_after("audit.broker_down", error)
            except SQLAlchemyError as error:
                self._pause_after("audit.database_down", error)
            except Exception:  # edge of the thread: a bug must not end the writer
                log.exception("audit.writer_failed")
                self._pause_after("audit.writer_failed", None)
        self._release_lease()

    def stop(self) -> None:
        """Make `run` return, within a second unless a write is blocked in the database."""
        self._stop.set()

    def drain(self) -> int:
        """Write everything in the stream now and return the number of entries; for tools and tests."""
        written = 0
        self._open_group()
        for start in ("0", ">"):
            while entries := self._read(start, block=None):
                self._write_and_acknowledge(entries)
                written += len(entries)
        return written

    def _turn(self) -> None:
        """Hold the lease, read a batch, write it, acknowledge it."""
        if self._tuning.idle is not None and time.monotonic() - self._last_entries > self._tuning.idle.total_seconds():
            self._stop.set()
            return
        if not self._lease.hold():
            self._is_leading = False
            self._stop.wait(self._tuning.standby.total_seconds())
            return
        if not self._is_leading:
            self._open_group()
            self._is_leading, self._next = True, "0"
        entries = self._read(self._next, self._tuning.block)
        if not entries:
            self._next = ">"
            return
        begin = time.thread_time()
        self._write_and_acknowledge(entries)
        worked = time.thread_time() - begin
        self._last_entries = time.monotonic()
        if self._tuning.share < 1:
            self._give_way(worked)
        if len(entries) < self._tuning.batch:
            self._stop.wait(self._tuning.gather.total_seconds())

    def _give_way(self, worked: float) -> None:
        """Leave CPU time to the tasks unless the backlog is large; `worked` is CPU seconds."""
        waiting = self._redis.xlen(self._stream)
        if (
            self._delegate is not None
            and waiting >= self._tuning.busy
            and self._delegate(self._lease.token, self._stop)
        ):
            self._is_leading = False  # it used the same lease and may have left entries unacknowledged
        elif waiting < self._tuning.hurry:
            self._stop.wait(min(worked * (1 / self._tuning.share - 1), LONGEST_REST))

    def _read(self, start: str, block: timedelta | None) -> list[Entry]:
        block_ms = None if block is None or start != ">" else int(block / timedelta(milliseconds=1))
        answer = self._redis.xreadgroup(
            GROUP, CONSUMER, {self._stream: start}, count=self._tuning.batch, block=block_ms
        )
        streams = answer.items() if isinstance(answer, dict) else answer or []
        return [(entry_id, fields or {}) for _, entries in streams for entry_id, fields in _flat(entries)]

    def _write_and_acknowledge(self, entries: Sequence[Entry]) -> None:
        """Write the entries, then acknowledge and trim them."""
        self._write(self._parse(entries))
        ids = [entry_id for entry_id, _ in entries]
        self._redis.eval(ACKNOWLEDGE, 1, self._stream, GROUP, *ids)
        if self._failures:
            log.info("audit.writer_recovered", failures=self._failures)
        self._failures = 0

    def _parse(self, entries: Sequence[Entry]) -> list[Parsed]:
        parsed: list[Parsed] = []
        for entry in entries:
            if not entry[1]:  # trimmed while it was pending
                continue
            try:
                parsed.append((entry, read_event(*entry)))
            except MalformedEventError as error:
                self._refuse(entry, error)
        return parsed

    def _write(self, parsed: Sequence[Parsed]) -> None:
        """Write all entries; if the database refuses a value, bisect to isolate the entry that carries it."""
        if not parsed:
            return
        try:
            write_events(self._engine, [event for _, event in parsed])
        except (StatementError, ArithmeticError, TypeError, ValueError) as error:
            if not _is_value_error(error):
                raise
            if len(parsed) == 1:
                self._refuse(parsed[0][0], error)
                return
            middle = len(parsed) // 2
            self._write(parsed[:middle])
            self._write(parsed[middle:])

    def _refuse(self, entry: Entry, error: Exception) -> None:
        """Move an entry that can never be written to the stream of refused entries."""
        log.error("audit.event_refused", entry=entry[0].decode(), kind=type(error).__name__)
        self._redis.eval(PUT_ASIDE, 1, self._refused, REFUSED_KEPT, *chain.from_iterable(entry[1].items()))

    def _open_group(self) -> None:
        try:
            self._redis.eval(OPEN_GROUP, 1, self._stream, GROUP)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # it exists
                raise

    def _pause_after(self, event: str, error: Exception | None) -> None:
        """Wait before the next try, with exponential backoff; log only the first failure of an outage."""
        self._failures += 1
        self._is_leading = False  # a restarted Redis may have lost the group; entries we hold are pending again
        if self._failures == 1 and error is not None:
            log.warning(event, error=type(error).__name__, reason=str(error).splitlines()[0] if str(error) else "")
        pause = min(0.1 * 2 ** min(self._failures, 10), self._tuning.longest_pause.total_seconds())
        self._stop.wait(pause)

    def _release_lease(self) -> None:
        try:
            self._lease.release()
        except (RedisError, OSError) as error:
            log.warning("audit.lease_not_released", error=type(error).__name__)  # it expires by itself


def backlog(client: Redis, prefix: str) -> int:
    """Return the number of events not written to SQL yet."""
    length: Any = client.xlen(stream_key(prefix))
    return int(length)


def backlog_age(client: Redis, prefix: str) -> timedelta:
    """Return the age of the oldest event not written to SQL yet, by the server's clock; 0: none."""
    connection: Any = client
    oldest = connection.xrange(stream_key(prefix), count=1)
    if not oldest:
        return timedelta(0)
    seconds, micros = connection.time()
    now_ms = seconds * 1000 + micros // 1000
    return timedelta(milliseconds=max(now_ms - int(oldest[0][0].partition(b"-")[0]), 0))


def _flat(entries: Any) -> list[Entry]:
    """Unwrap the extra list of RESP3 answers."""
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _is_value_error(error: Exception) -> bool:
    """Tell whether a value can never be stored, as opposed to a database that cannot store now."""
    if isinstance(error, DataError | IntegrityError):
        return True
    if isinstance(error, DBAPIError):
        return isinstance(error, InterfaceError) and "binding parameter" in str(error)  # SQLite: an unsupported type
    return True
