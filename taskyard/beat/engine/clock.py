"""The scheduler's clock: the broker's, so that a wrong or moved clock of this machine fires nothing early or late."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the time is."""

    def now(self) -> datetime:
        """Return the moment, aware, in UTC."""
        ...

    def heard(self, server_time: datetime) -> None:
        """Take note of what the broker's clock says right now."""
        ...


class ServerClock:
    """
    The broker's time as last heard, carried on by the monotonic clock.

    Until the broker was heard it is the machine's time. Setting the machine's clock has no effect after that.
    """

    def __init__(self) -> None:
        self._heard = time.monotonic(), datetime.now(UTC)  # one value: threads read it

    def now(self) -> datetime:
        """Return the broker's moment."""
        heard_at, server_time = self._heard
        return server_time + timedelta(seconds=time.monotonic() - heard_at)

    def heard(self, server_time: datetime) -> None:
        """Take the broker's time over; it is as old as the answer's way back, a few milliseconds at most."""
        self._heard = time.monotonic(), server_time
