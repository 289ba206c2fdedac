"""A scheduler for processes under libfaketime, which breaks `time.sleep` when it leaves the monotonic clock alone."""

import threading
import time
from typing import SupportsIndex

from taskyard.beat.scheduler import Scheduler

__all__ = ["Scheduler"]
MOVABLE = {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # as when a machine's clock is set


def _sleep(seconds: SupportsIndex | float) -> None:
    threading.Event().wait(float(seconds))


time.sleep = _sleep
