"""How long to wait before a crashed process is restarted, and when it is in a crash loop."""

from dataclasses import dataclass, field
from datetime import timedelta

MAX_DELAY = timedelta(minutes=1)
STABLE_AFTER = timedelta(minutes=1)  # a process that ran this long is not in a crash loop


@dataclass(slots=True)
class RestartBackoff:
    """
    Counts consecutive crashes of one process.

    >>> restarts = RestartBackoff(first_delay=timedelta(seconds=1), limit=3)
    >>> [(restarts.next_delay(timedelta(0)), restarts.is_crash_loop) for _ in range(4)]
    [(1.0, False), (2.0, False), (4.0, False), (60.0, True)]
    """

    first_delay: timedelta
    limit: int  # consecutive crashes after which it is a crash loop
    _crashes: int = field(default=0, init=False)

    @property
    def is_crash_loop(self) -> bool:
        """Whether it crashed more often than the limit, each time soon after its start."""
        return self._crashes > self.limit

    def next_delay(self, lived: timedelta) -> float:
        """Count a crash; return the seconds to wait, the longest delay in a crash loop."""
        if lived >= STABLE_AFTER:
            self._crashes = 0
        self._crashes += 1
        if self.is_crash_loop:
            return MAX_DELAY.total_seconds()
        growth: int = 2 ** min(self._crashes - 1, 16)
        return min(self.first_delay * growth, MAX_DELAY).total_seconds()
