"""Measures how long code that does not await blocks the event loop, and warns."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from celery.utils.log import get_logger

EVERY = 0.25  # seconds between two looks
WARN_FROM = 0.2  # seconds of block
log = get_logger(__name__)


class LoopLagMonitor:
    """A timer on the loop: its lateness is how long the loop was blocked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, running: Callable[[], Iterable[str]]) -> None:
        """`running` names the tasks that are at work."""
        self._loop, self._running = loop, running
        self.longest = 0.0  # seconds

    def start(self) -> None:
        """Begin; in the loop's thread."""
        self._loop.call_later(EVERY, self._look, self._loop.time() + EVERY)

    def _look(self, due: float) -> None:
        late = self._loop.time() - due
        self.longest = max(self.longest, late)
        if late >= WARN_FROM:
            names = ", ".join(f"{count} x {name}" for name, count in Counter(self._running()).most_common(5))
            log.warning("the event loop was blocked for %.2f s: a task that runs does not await (%s)", late, names)
        self.start()
