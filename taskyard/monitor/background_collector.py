"""The state of broker and database in numbers, looked at in the background: an answer never waits for a server."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog
from prometheus_client import Metric
from redis import Redis
from sqlmodel import Session

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.database.engine import open_session
from taskyard.gauges import Figure
from taskyard.history.queries.dead_letter_figures import letter_figures
from taskyard.history.writer.event_writer import backlog, backlog_age
from taskyard.settings.queues import QUEUES
from taskyard.tasks.current_app import current_app

EVERY = 5.0  # seconds between two looks
STALE = 30.0  # seconds after which a number says nothing any more
log = structlog.get_logger(__name__)


class Look:
    """One thing that is looked at again and again by a thread of its own."""

    def __init__(self, part: str, look: Callable[[], Iterable[Figure]], every: float = EVERY) -> None:
        """Prepare; `part` is what it is called in `taskyard_up`."""
        self._part, self._look, self._every = part, look, every
        self._seen: list[Figure] = []
        self._seen_at = -STALE  # monotonic seconds
        self._is_down = False
        self._stop = threading.Event()
        threading.Thread(target=self._run, name=f"metrics of the {part}", daemon=True).start()

    def figures(self) -> list[Figure]:
        """Return what was seen last; of a server that does not answer, only that."""
        is_up = time.monotonic() - self._seen_at < STALE and not self._is_down
        up = Figure("taskyard_up", "1 if the server answers", float(is_up), {"part": self._part})
        return [up, *(self._seen if is_up else ())]

    def stop(self) -> None:
        """End the thread soon."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            try:
                self._seen = list(self._look())
                self._seen_at, self._is_down = time.monotonic(), False
            except Exception as error:  # noqa: BLE001 - the edge of the thread: whatever happens, the next look comes
                if not self._is_down:
                    log.warning("metrics.look_failed", part=self._part, error=type(error).__name__)
                self._is_down = True
            if self._stop.wait(self._every):
                return


def broker_figures(client: Redis, prefix: str) -> Iterator[Figure]:
    """Give what waits in each queue, who takes from it, and what the audit has not written yet."""
    control = QueueControl(client, prefix)
    workers: set[bytes] = set()
    for queue in QUEUES:
        counts = control.counts(queue.name)
        label = {"queue": queue.name}
        for state in ("waiting", "delayed", "active", "dead"):
            value = float(getattr(counts, state))
            yield Figure("taskyard_queue_messages", "Messages of a queue", value, {**label, "state": state})
        oldest = counts.oldest_age.total_seconds() if counts.oldest_age else 0.0
        yield Figure("taskyard_queue_oldest_seconds", "Age of the message that is first in line", oldest, label)
        yield Figure("taskyard_queue_consumers", "Processes that take from it", float(counts.consumers), label)
        yield Figure("taskyard_queue_paused", "1 while nothing is handed out", float(counts.is_paused), label)
        workers |= set(control.consumers(queue.name))
    yield Figure("taskyard_workers", "Worker processes that take from any queue", float(len(workers)))
    yield Figure("taskyard_audit_backlog", "Events that are not in SQL yet", float(backlog(client, prefix)))
    age = backlog_age(client, prefix).total_seconds()
    yield Figure("taskyard_audit_lag_seconds", "Age of the oldest event that is not in SQL", age)
    used, limit = broker_memory(client)
    yield Figure("taskyard_broker_memory_bytes", "Memory of the broker", float(used), {"kind": "used"})
    if limit:
        yield Figure("taskyard_broker_memory_bytes", "Memory of the broker", float(limit), {"kind": "limit"})


def broker_memory(client: Redis) -> tuple[int, int]:
    """Return what the broker uses and its `maxmemory`, in bytes; a limit of 0 is none."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"]), int(memory.get("maxmemory", 0))


def database_figures(open_one: Callable[[], Session] = open_session) -> Iterator[Figure]:
    """Give dead letters, and the state of each domain."""
    with open_one() as session:
        yield from letter_figures(session, (queue.name for queue in QUEUES))
        for domain in current_app().domains:
            if gauges := domain.load("gauges"):
                yield from gauges(session)


def families(figures: Iterable[Figure]) -> list[Metric]:
    """Group figures by name."""
    found: dict[str, Metric] = {}
    for figure in figures:
        family = found.setdefault(figure.name, Metric(figure.name, figure.help, "gauge"))
        family.add_sample(figure.name, dict(figure.labels), figure.value)
    return list(found.values())
