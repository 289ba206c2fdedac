"""Compare this host's clock with the broker's, which decides when a task is due or has expired."""

import logging
import time
from datetime import timedelta

SKEW = timedelta(seconds=2)  # tolerated difference between two clocks
WARN_EVERY = 600.0  # seconds
log = logging.getLogger(__name__)
_warned_at: list[float] = []  # monotonic seconds; empty: never


def warn_of_skew(server_seconds: float, asked_at: float) -> None:
    """
    Log a warning, at most every ten minutes, when the clocks differ.

    Args:
        server_seconds: The broker's time, since 1970.
        asked_at: This host's time before it asked, since 1970.
    """
    now, tolerated = time.time(), SKEW.total_seconds()
    if asked_at - tolerated <= server_seconds <= now + tolerated:
        return
    if _warned_at and time.monotonic() - _warned_at[0] < WARN_EVERY:
        return
    _warned_at[:] = [time.monotonic()]
    log.warning(
        "the clock of this host differs from the broker's by %.1f s: an eta, and an expires that is a time, are off"
        " by that much; synchronize both hosts with NTP",
        now - server_seconds,
    )
