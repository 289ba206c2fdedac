"""Slots: the due times of a schedule, in UTC, with the daylight-saving rules of its zone."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from taskyard.beat.timing.cron import CronExpression

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
REMEMBERED = 3  # answers
COUNT_LIMIT = 200  # slots of an outage that are counted one by one; more are reported as "at least"


class Timing(Protocol):
    """Yields the slots of a schedule in order."""

    def after(self, moment: datetime) -> datetime | None:
        """Return the first slot strictly after an aware moment, in UTC; None: there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Cron:
    """
    A cron expression in a time zone.

    With a fixed minute and hour (neither field starts with `*`) each local time happens once: one that a change to
    summer time leaves out happens at the first moment after the gap, one that occurs twice happens at its first
    occurrence. Other expressions follow elapsed time: what the gap leaves out is not made up for, what occurs twice
    happens twice. So "02:30" runs once every day of the year, and "every ten minutes" runs every ten minutes.
    """

    expression: CronExpression
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """Return the first slot strictly after the moment."""
        return self._once_per_local_time(moment) if self.expression.is_wall_clock else self._by_elapsed_time(moment)

    def _once_per_local_time(self, moment: datetime) -> datetime | None:
        local: datetime | None = moment.astimezone(self.zone).replace(tzinfo=None)
        while local is not None and (local := self.expression.after(local)) is not None:
            slot = first_real(local, self.zone)
            if slot > moment:
                return slot
        return None

    def _by_elapsed_time(self, moment: datetime) -> datetime | None:
        start, known = moment, moment
        while True:
            offset = self._offset(known)
            local = self.expression.after((start.astimezone(UTC) + offset).replace(tzinfo=None))
            if local is None:
                return None
            slot = local.replace(tzinfo=UTC) - offset
            change = self._first_change(known, slot, offset)
            if change is None:
                return slot
            start, known = change - SECOND, change  # the moment of the change itself may be a slot

    def _first_change(self, known: datetime, until: datetime, offset: timedelta) -> datetime | None:
        """Return the first second in (known, until] at which the zone's offset is another one."""
        before = known
        while before < until:
            probe = min(before + DAY, until)
            if self._offset(probe) != offset:
                return self._change_between(before, probe, offset)
            before = probe
        return None

    def _change_between(self, before: datetime, changed: datetime, offset: timedelta) -> datetime:
        low, high = int((before - EPOCH) / SECOND), -int((EPOCH - changed) // SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._offset(EPOCH + middle * SECOND) != offset else (middle, high)
        return EPOCH + high * SECOND

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta(0)


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval aligned to the clock: every 30 s means at :00 and :30, whoever leads."""

    interval: timedelta

    def after(self, moment: datetime) -> datetime:
        """Return the first multiple of the interval since 1970 that lies strictly after the moment."""
        return EPOCH + ((moment - EPOCH) // self.interval + 1) * self.interval


@dataclass(frozen=True, slots=True)
class Once:
    """One moment."""

    at: datetime

    def after(self, moment: datetime) -> datetime | None:
        """Return the moment while it lies ahead."""
        return self.at if self.at > moment else None


@dataclass(frozen=True, slots=True)
class Series:
    """The slots of a timing from a start (inclusive) to an end (exclusive); None: no bound."""

    timing: Timing
    start: datetime | None = None
    end: datetime | None = None

    def after(self, moment: datetime) -> datetime | None:
        """Return the first slot strictly after the moment and inside the bounds."""
        if self.start is not None and moment < self.start:
            moment = self.start - timedelta(microseconds=1)
        try:
            slot = self.timing.after(moment)
        except OverflowError:  # after the calendar's last day
            return None
        return None if slot is None or (self.end is not None and slot >= self.end) else slot


class CachedSeries:
    """A series that caches its last few answers: planning asks for the same ones again."""

    __slots__ = ("_answers", "_series")

    def __init__(self, series: Timing) -> None:
        self._series = series
        self._answers: dict[datetime, datetime | None] = {}

    def after(self, moment: datetime) -> datetime | None:
        """Return the first slot strictly after the moment."""
        if moment not in self._answers:
            if len(self._answers) == REMEMBERED:
                del self._answers[next(iter(self._answers))]
            self._answers[moment] = self._series.after(moment)
        return self._answers[moment]


@dataclass(frozen=True, slots=True)
class DueSlots:
    """The slots in a period: their number, and the newest of them in order."""

    newest: tuple[datetime, ...]
    count: int
    is_exact: bool  # False: there are more than `count`


def slots_between(series: Timing, after: datetime, until: datetime, keep: int) -> DueSlots:
    """Return the slots in (after, until], of which at least the newest `keep` (fewer if there are fewer)."""
    newest: deque[datetime] = deque(maxlen=max(keep, 1))
    count, moment = 0, after
    while count < max(COUNT_LIMIT, keep):
        slot = series.after(moment)
        if slot is None or slot > until:
            return DueSlots(tuple(newest), count, is_exact=True)
        newest.append(slot)
        count, moment = count + 1, slot
    return DueSlots(_newest(series, after, until, keep), count, is_exact=False)


def first_real(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the UTC moment of a naive local time: its first occurrence, or the end of the gap that leaves it out."""
    if _exists(local, zone):
        return local.replace(tzinfo=zone).astimezone(UTC)
    local = local.replace(second=0, microsecond=0)
    while not _exists(local, zone):
        local += timedelta(minutes=1)
    return local.replace(tzinfo=zone).astimezone(UTC)


def _exists(local: datetime, zone: ZoneInfo) -> bool:
    return local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local


def _newest(series: Timing, after: datetime, until: datetime, keep: int) -> tuple[datetime, ...]:
    """Search back from the end in doubling windows, so that a long outage of a frequent schedule is cheap."""
    window = SECOND
    while True:
        begin = max(after, until - window)
        found: deque[datetime] = deque(maxlen=max(keep, 1))
        moment = begin
        while (slot := series.after(moment)) is not None and slot <= until:
            found.append(slot)
            moment = slot
        if len(found) >= keep or begin == after:
            return tuple(found)
        window *= 2
