"""The leader's schedules in memory, ordered by when their next slots must be enqueued."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from taskyard.beat.definitions import Misfire
from taskyard.beat.engine.publisher import PreparedMessage
from taskyard.beat.timing.slots import CachedSeries


@dataclass(slots=True)
class ArmedSchedule:
    """A schedule that can fire, and its progress."""

    id: UUID
    name: str
    task: str
    args: dict[str, object]
    priority: int
    series: CachedSeries
    shift: timedelta
    misfire: Misfire
    misfire_limit: int
    skips_overlap: bool
    ahead: timedelta  # its slots are enqueued this long before they are due
    cursor: datetime
    last_run_id: UUID | None
    changes: int
    wake: datetime | None = None  # when to enqueue its next slot; None: no slot is left
    prepared: PreparedMessage | None = None  # the message of its next slot


class Agenda:
    """Armed schedules by id, and a heap of their wake times; outdated heap entries are dropped lazily."""

    def __init__(self) -> None:
        self._armed: dict[UUID, ArmedSchedule] = {}
        self._heap: list[tuple[datetime, int, UUID]] = []
        self._unprepared: list[tuple[datetime, int, UUID]] = []
        self._order = 0  # breaks ties, and identifies outdated entries
        self._current: dict[UUID, int] = {}

    def __len__(self) -> int:
        return len(self._armed)

    def __iter__(self) -> Iterator[ArmedSchedule]:
        return iter(self._armed.values())

    def clear(self) -> None:
        """Remove all schedules."""
        self._armed.clear()
        self._current.clear()
        self._heap.clear()
        self._unprepared.clear()

    def put(self, armed: ArmedSchedule) -> None:
        """Add or replace a schedule; its next slot is the first one after its cursor."""
        self._armed[armed.id] = armed
        slot = armed.series.after(armed.cursor)
        armed.wake = None if slot is None else slot + armed.shift - armed.ahead
        armed.prepared = None
        self._order += 1
        self._current[armed.id] = self._order
        if armed.wake is not None:
            heapq.heappush(self._heap, (armed.wake, self._order, armed.id))
            if not armed.skips_overlap:  # most of their slots may be left out
                heapq.heappush(self._unprepared, (armed.wake, self._order, armed.id))

    def get(self, schedule_id: UUID) -> ArmedSchedule | None:
        """Return a schedule."""
        return self._armed.get(schedule_id)

    def drop(self, schedule_id: UUID) -> None:
        """Remove a schedule, if it is there."""
        self._armed.pop(schedule_id, None)
        self._current.pop(schedule_id, None)

    def others(self, ids: set[UUID]) -> set[UUID]:
        """Return the ids of the schedules here that are not among these."""
        return self._armed.keys() - ids

    def awake_by(self, moment: datetime, limit: int) -> list[ArmedSchedule]:
        """Return up to `limit` schedules due for work, most overdue first; :meth:`put` them back afterwards."""
        found: list[ArmedSchedule] = []
        entries: list[tuple[datetime, int, UUID]] = []
        while self._heap and self._heap[0][0] <= moment and len(found) < limit:
            entry = heapq.heappop(self._heap)
            if self._current.get(entry[2]) == entry[1]:
                entries.append(entry)
                found.append(self._armed[entry[2]])
        for entry in entries:  # they stay until put back: a failed write must not lose them
            heapq.heappush(self._heap, entry)
        return found

    def to_prepare(self, moment: datetime, limit: int) -> list[ArmedSchedule]:
        """Return up to `limit` schedules that wake by then, each once per slot."""
        found: list[ArmedSchedule] = []
        while self._unprepared and self._unprepared[0][0] <= moment and len(found) < limit:
            entry = heapq.heappop(self._unprepared)
            if self._current.get(entry[2]) == entry[1]:
                found.append(self._armed[entry[2]])
        return found

    def next_wake(self) -> datetime | None:
        """Return the earliest wake time; None: no slot is left."""
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
