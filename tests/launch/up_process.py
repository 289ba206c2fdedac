"""An `up` in a process of its own, whose log and processes a test can see and hurt."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.waiting import wait_for
from tests.workers import ROOT

LIMIT = 60  # seconds; the machine may be busy
DEFAULT_HANGUP = ("env", "--default-signal=HUP")  # whatever started the tests may ignore them, as nohup does


class Up:
    """One started `up`; killed with all it started at the end of the test."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*DEFAULT_HANGUP, sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                start_new_session=True,
            )

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log, and that of its processes."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def says(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The events with these fields."""
        return [each for each in self.events if each["event"] == event and fields.items() <= each.items()]

    def wait_says(self, event: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """Wait for an event to have come so often; return the newest."""

        def seen() -> bool:
            assert self.process.poll() is None or len(self.says(event, **fields)) >= count, self.tail()
            return len(self.says(event, **fields)) >= count

        wait_for(seen, LIMIT, f"{count} x {event} {fields}", self.tail)
        return self.says(event, **fields)[-1]

    def pid_of(self, name: str) -> int:
        """The process id of its newest start."""
        return int(self.wait_says("process.started", process=name)["pid"])

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to `up` itself."""
        self.process.send_signal(number)

    def wait_ended(self, limit_seconds: float = LIMIT) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(limit_seconds)

    def family(self) -> list[psutil.Process]:
        """All processes that it started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            family = self.family()
            self.process.kill()
            self.process.wait()
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def all_gone(family: Sequence[psutil.Process]) -> bool:
    """Whether none of them lives."""
    return not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
