"""
A switch of the tests: kill the worker at the n-th thing that it does after a step's handler has returned.

Things are: each SQL statement before it is executed, each commit before and after it, each command to the broker before
and after it is sent. With `CRASH_AT=0` nothing is killed: the things are written down in the file `points`.
"""

import os
import signal
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any

from celery.signals import task_prerun
from redis.connection import AbstractConnection
from sqlalchemy import Engine, event

_armed: ContextVar[Iterator[int] | None] = ContextVar("armed", default=None)  # the asyncio pool's threads inherit it


def arm() -> None:
    """From here on, count what is done for this step."""
    _armed.set(count(1))


def install(crash_at: int, folder: Path) -> None:
    """Kill this process's group at its `crash_at`-th thing, once: the file `crashed.N` says that it was done."""
    points, marker = folder / "points", folder / f"crashed.{crash_at}"

    def note(what: str) -> None:
        counter = _armed.get()
        if counter is None:
            return
        number = next(counter)
        if not crash_at:
            with points.open("a") as file:
                file.write(f"{what}\n")
        elif number == crash_at and not marker.exists():
            marker.touch()
            os.killpg(0, signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", lambda *facts: note(facts[2].split()[0]))
    event.listen(Engine, "commit", lambda _connection: note("commit"))  # before it
    event.listen(Engine, "checkin", lambda *_: note("committed"))
    send = AbstractConnection.send_packed_command

    def noted(self: AbstractConnection, *args: Any, **options: Any) -> Any:
        note("send")
        try:
            return send(self, *args, **options)  # type: ignore[no-untyped-call]  # redis has no types here
        finally:
            note("sent")

    AbstractConnection.send_packed_command = noted  # type: ignore[method-assign]
    task_prerun.connect(_disarm, weak=False)


def _disarm(**_: Any) -> None:
    """The thread runs something else."""
    _armed.set(None)
