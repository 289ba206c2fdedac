"""How long to wait before a process that died is started again, and when to give up."""

from dataclasses import dataclass, field
from datetime import timedelta

LONGEST_PAUSE = timedelta(minutes=1)
STEADY = timedelta(minutes=1)  # a process that lived so long is not in a crash loop


@dataclass(slots=True)
class Restarts:
    """
    The deaths in a row of one process.

    >>> restarts = Restarts(first_pause=timedelta(seconds=1), limit=3)
    >>> [restarts.pause_after(timedelta(0)) for _ in range(4)]
    [1.0, 2.0, 4.0, None]
    """

    first_pause: timedelta
    limit: int  # starts again in a row; 0: none
    _deaths: int = field(default=0, init=False)

    def pause_after(self, lived: timedelta) -> float | None:
        """Count a death; return the seconds to wait, or None when the limit is passed."""
        if lived >= STEADY:
            self._deaths = 0
        self._deaths += 1
        if self._deaths > self.limit:
            return None
        growth: int = 2 ** min(self._deaths - 1, 16)
        return min(self.first_pause * growth, LONGEST_PAUSE).total_seconds()
