"""The leader's schedules in memory, in the order in which their next slots are to be enqueued."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from taskyard.beat.definitions import Misfire
from taskyard.beat.engine.publisher import Prepared
from taskyard.beat.timing.slots import Remembered


@dataclass(slots=True)
class Armed:
    """One schedule that can fire, and how far it has come."""

    id: UUID
    name: str
    task: str
    args: dict[str, object]
    priority: int
    series: Remembered
    shift: timedelta
    misfire: Misfire
    misfire_limit: int
    skips_overlap: bool
    ahead: timedelta  # it is enqueued so long before it is due
    cursor: datetime
    last_run_id: UUID | None
    changes: int
    wake: datetime | None = None  # when its next slot is to be enqueued; None: no slot is left
    prepared: Prepared | None = None  # the message of its next slot


class Agenda:
    """Armed schedules by id, and a heap of when to wake for them; entries of the heap that are outdated are dropped."""

    def __init__(self) -> None:
        self._armed: dict[UUID, Armed] = {}
        self._heap: list[tuple[datetime, int, UUID]] = []
        self._unprepared: list[tuple[datetime, int, UUID]] = []
        self._order = 0  # makes equal times comparable, and tells an outdated entry
        self._current: dict[UUID, int] = {}

    def __len__(self) -> int:
        return len(self._armed)

    def __iter__(self) -> Iterator[Armed]:
        return iter(self._armed.values())

    def clear(self) -> None:
        """Forget everything."""
        self._armed.clear()
        self._current.clear()
        self._heap.clear()
        self._unprepared.clear()

    def put(self, armed: Armed) -> None:
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

    def get(self, schedule_id: UUID) -> Armed | None:
        """Return a schedule."""
        return self._armed.get(schedule_id)

    def drop(self, schedule_id: UUID) -> None:
        """Remove a schedule; unknown ones are none of our business."""
        self._armed.pop(schedule_id, None)
        self._current.pop(schedule_id, None)

    def others(self, ids: set[UUID]) -> set[UUID]:
        """Return the ids that are here and not among these."""
        return self._armed.keys() - ids

    def awake_by(self, moment: datetime, limit: int) -> list[Armed]:
        """Return up to `limit` schedules to deal with by now, the most overdue first; :meth:`put` them again after."""
        found: list[Armed] = []
        entries: list[tuple[datetime, int, UUID]] = []
        while self._heap and self._heap[0][0] <= moment and len(found) < limit:
            entry = heapq.heappop(self._heap)
            if self._current.get(entry[2]) == entry[1]:
                entries.append(entry)
                found.append(self._armed[entry[2]])
        for entry in entries:  # they stay until they are put again: a failed write must not lose them
            heapq.heappush(self._heap, entry)
        return found

    def to_prepare(self, moment: datetime, limit: int) -> list[Armed]:
        """Return up to `limit` schedules that wake by then and were not returned here for that slot."""
        found: list[Armed] = []
        while self._unprepared and self._unprepared[0][0] <= moment and len(found) < limit:
            entry = heapq.heappop(self._unprepared)
            if self._current.get(entry[2]) == entry[1]:
                found.append(self._armed[entry[2]])
        return found

    def next_wake(self) -> datetime | None:
        """Return when to look again; None: no slot is left."""
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
