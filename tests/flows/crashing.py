"""
A switch of the tests: kill the worker at the n-th thing that it does after a step's handler has returned.

Things are: each SQL statement before it is executed, each commit before and after it, each message before and after it
is sent. With `CRASH_AT=0` nothing is killed.
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from kombu import Producer
from sqlalchemy import Engine, event

_seen = threading.local()


def arm() -> None:
    """From here on, count what this thread does."""
    _seen.count = 0


def disarm() -> None:
    """Stop counting: the thread runs something else."""
    vars(_seen).pop("count", None)


def install(crash_at: int, marker: Path) -> None:
    """Kill this process's group at its `crash_at`-th thing, once: `marker` says that it was done."""

    def note(*_: Any, **__: Any) -> None:
        if not hasattr(_seen, "count"):
            return
        _seen.count += 1
        if _seen.count == crash_at and not marker.exists():
            marker.touch()
            os.killpg(0, signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", note)  # before it
    event.listen(Engine, "checkin", note)  # after a commit
    publish = Producer.publish

    def noted(self: Producer, *args: Any, **options: Any) -> Any:
        note()
        try:
            return publish(self, *args, **options)
        finally:
            note()

    Producer.publish = noted  # type: ignore[method-assign]
