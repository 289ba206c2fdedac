"""A scheduler whose clock runs faster than time: ten minutes of slots in one minute, with leases shortened alike."""

import os
from datetime import datetime, timedelta

from taskyard.beat.engine.clock import Clock, ServerClock
from taskyard.beat.engine.loop import Intervals
from taskyard.beat.scheduler import Scheduler


class FastClock(ServerClock):
    """The broker's time, stretched from an origin on."""

    def __init__(self, origin: datetime, rate: float) -> None:
        super().__init__()
        self._origin, self._rate = origin, rate

    def now(self) -> datetime:
        """Return the stretched moment."""
        return self._origin + (super().now() - self._origin) * self._rate


class FastScheduler(Scheduler):
    """Told by FAST_ORIGIN (a moment) and FAST_RATE (how many seconds pass in one)."""

    def clock(self) -> Clock:
        """Return the stretched clock."""
        return FastClock(datetime.fromisoformat(os.environ["FAST_ORIGIN"]), _rate())

    def pace(self) -> Intervals:
        """Return a pace that is as fast as the clock."""
        return Intervals(
            lease=timedelta(seconds=5) / _rate(),
            poll=timedelta(seconds=0.5) / _rate(),
            stand_by=timedelta(seconds=1) / _rate(),
            repair=timedelta(seconds=5) / _rate(),
            patience=timedelta(seconds=2) / _rate(),
        )


def _rate() -> float:
    return float(os.environ["FAST_RATE"])
