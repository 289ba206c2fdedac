"""Gauges of broker and database, collected in the background: a scrape never waits for a server."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from prometheus_client import Metric
from redis import Redis, ResponseError
from redis.exceptions import NoPermissionError
from sqlmodel import Session

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.database.engine import open_session
from taskyard.gauges import GaugeSample
from taskyard.history.queries.dead_letter_gauges import dead_letter_gauges
from taskyard.history.writer.event_writer import backlog, backlog_age
from taskyard.tasks.current_app import current_app
from taskyard.tasks.known_queues import known_queues

COLLECT_EVERY = 5.0  # seconds between two collections
STALE_AFTER = 30.0  # seconds after which a value is no longer shown
log = structlog.get_logger(__name__)


class BackgroundCollector:
    """Runs a function every few seconds in a thread of its own, and keeps its last gauges."""

    def __init__(self, part: str, collect: Callable[[], Iterable[GaugeSample]], every: float = COLLECT_EVERY) -> None:
        """Start; `part` is the label in `taskyard_up`."""
        self._part, self._collect, self._every = part, collect, every
        self._samples: list[GaugeSample] = []
        self._collected_at = -STALE_AFTER  # monotonic seconds
        self._is_down = False
        self._stop = threading.Event()
        threading.Thread(target=self._run, name=f"metrics of the {part}", daemon=True).start()

    def samples(self) -> list[GaugeSample]:
        """Return the last gauges; only `taskyard_up` while the server does not answer."""
        is_up = time.monotonic() - self._collected_at < STALE_AFTER and not self._is_down
        up = GaugeSample("taskyard_up", "1 if the server answers", float(is_up), {"part": self._part})
        return [up, *(self._samples if is_up else ())]

    def stop(self) -> None:
        """Stop the thread soon."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            try:
                self._samples = list(self._collect())
                self._collected_at, self._is_down = time.monotonic(), False
            except Exception as error:  # noqa: BLE001 - the edge of the thread: collecting goes on
                if not self._is_down:
                    log.warning("metrics.collect_failed", part=self._part, error=type(error).__name__)
                self._is_down = True
            if self._stop.wait(self._every):
                return


def broker_gauges(client: Redis, prefix: str) -> Iterator[GaugeSample]:
    """Yield message counts and consumers of each queue, the audit backlog, and the broker's memory."""
    control = QueueControl(client, prefix)
    workers: set[bytes] = set()
    for queue in known_queues():
        counts = control.counts(queue)
        label = {"queue": queue}
        for state in ("waiting", "delayed", "active", "dead"):
            value = float(getattr(counts, state))
            yield GaugeSample("taskyard_queue_messages", "Messages of a queue", value, {**label, "state": state})
        oldest = counts.oldest_age.total_seconds() if counts.oldest_age else 0.0
        yield GaugeSample("taskyard_queue_oldest_seconds", "Age of the next message", oldest, label)
        yield GaugeSample("taskyard_queue_consumers", "Consumers of a queue", float(counts.consumers), label)
        yield GaugeSample("taskyard_queue_paused", "1 while the queue is paused", float(counts.is_paused), label)
        workers |= set(control.consumers(queue))
    yield GaugeSample("taskyard_workers", "Worker processes that consume any queue", float(len(workers)))
    yield GaugeSample("taskyard_audit_backlog", "Events not written to SQL yet", float(backlog(client, prefix)))
    age = backlog_age(client, prefix).total_seconds()
    yield GaugeSample("taskyard_audit_lag_seconds", "Age of the oldest event not written to SQL yet", age)
    yield from _memory_gauges(client)


def _memory_gauges(client: Redis) -> Iterator[GaugeSample]:
    try:
        used, limit = broker_memory(client)
    except ResponseError as error:
        if is_refused(error):  # INFO; a managed server has its own graph of this
            return
        raise
    yield GaugeSample("taskyard_broker_memory_bytes", "Memory of the broker", float(used), {"kind": "used"})
    if limit:
        yield GaugeSample("taskyard_broker_memory_bytes", "Memory of the broker", float(limit), {"kind": "limit"})


def is_refused(error: ResponseError) -> bool:
    """Whether the server has not got the command, or our user may not run it."""
    return isinstance(error, NoPermissionError) or "unknown command" in str(error).lower()


def broker_memory(client: Redis) -> tuple[int, int]:
    """Return used memory and `maxmemory` in bytes; 0 is no limit."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"]), int(memory.get("maxmemory", 0))


def database_gauges(open_one: Callable[[], Session] = open_session) -> Iterator[GaugeSample]:
    """Yield gauges of dead letters and of each domain."""
    with open_one() as session:
        yield from dead_letter_gauges(session, known_queues())
        for domain in current_app().domains:
            if gauges := domain.load("gauges"):
                yield from gauges(session)


def families(figures: Iterable[GaugeSample]) -> list[Metric]:
    """Group samples by name."""
    found: dict[str, Metric] = {}
    for figure in figures:
        family = found.setdefault(figure.name, Metric(figure.name, figure.help, "gauge"))
        family.add_sample(figure.name, dict(figure.labels), figure.value)
    return list(found.values())
