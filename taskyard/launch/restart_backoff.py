"""How long to wait before a crashed process is restarted, and when to give up."""

from dataclasses import dataclass, field
from datetime import timedelta

MAX_DELAY = timedelta(minutes=1)
STABLE_AFTER = timedelta(minutes=1)  # a process that ran this long is not in a crash loop


@dataclass(slots=True)
class RestartBackoff:
    """
    Counts consecutive crashes of one process.

    >>> restarts = RestartBackoff(first_delay=timedelta(seconds=1), limit=3)
    >>> [restarts.next_delay(timedelta(0)) for _ in range(4)]
    [1.0, 2.0, 4.0, None]
    """

    first_delay: timedelta
    limit: int  # consecutive restarts; 0: none
    _crashes: int = field(default=0, init=False)

    def next_delay(self, lived: timedelta) -> float | None:
        """Count a crash; return the seconds to wait, or None beyond the limit."""
        if lived >= STABLE_AFTER:
            self._crashes = 0
        self._crashes += 1
        if self._crashes > self.limit:
            return None
        growth: int = 2 ** min(self._crashes - 1, 16)
        return min(self.first_delay * growth, MAX_DELAY).total_seconds()
