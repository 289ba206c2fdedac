"""The processes that `up` keeps: Celery's programs, and the embedded Valkey."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.launch.printing import Printer
from taskyard.parent_death_signal import tied_to_parent

LOOK_EVERY = 0.1  # seconds between two looks at whether it lives
READ_AT_ONCE = 65_536  # bytes


class Stage(IntEnum):
    """When it is ended: first who makes work, then who does it, at last what they need."""

    BEAT = 1
    WORKERS = 2
    WATCHERS = 3
    SERVERS = 4


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how it is treated."""

    name: str
    command: tuple[str, ...]
    stage: Stage
    stop_seconds: float  # from SIGTERM to SIGKILL
    environment: Mapping[str, str] = field(default_factory=dict)
    is_vital: bool = True  # False: the others go on without it, and it does not matter how it ends
    orphan_signal: signal.Signals = signal.SIGTERM  # what the kernel sends it when `up` is killed


class Child(Protocol):
    """A process that is kept; all calls come from the main thread, whose end is the signal for its processes to end."""

    name: str
    stage: Stage
    stop_seconds: float
    is_vital: bool

    @property
    def pid(self) -> int:
        """Its process id; 0 before the first start."""

    @property
    def is_running(self) -> bool:
        """Whether it lives."""

    def start(self) -> None:
        """
        Start it.

        Raises:
            OSError: It could not be started.
        """

    async def ended(self) -> str:
        """Wait for its end, clean up what it left, and say how it ended."""

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it lives."""

    def kill(self) -> None:
        """Send SIGKILL to it and to all that it started."""


class ProgramChild:
    """One of Celery's programs, in a session of its own: Ctrl-C in the terminal is for `up` alone."""

    def __init__(self, program: Program, printer: Printer) -> None:
        self.name, self.stage, self.is_vital = program.name, program.stage, program.is_vital
        self.stop_seconds = program.stop_seconds
        self._program, self._printer = program, printer
        self._process: subprocess.Popen[bytes] | None = None
        self._reads: int | None = None  # our end of the pipe that it writes to

    @property
    def pid(self) -> int:
        """Its process id; 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and print what it writes."""
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        tied = tied_to_parent(self._program.orphan_signal)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
                [*tied, *self._program.command],
                stdin=subprocess.DEVNULL,
                stdout=writes,
                stderr=writes,
                env={**os.environ, **self._program.environment},
                start_new_session=True,
            )
        except OSError:
            os.close(reads)
            raise
        finally:
            os.close(writes)
        self._reads = reads
        asyncio.get_running_loop().add_reader(self._reads, self._read)

    async def ended(self) -> str:
        """Wait for its end, kill what it left behind, and say how it ended."""
        assert self._process is not None  # noqa: S101 - it was started
        while (code := self._process.poll()) is None:
            await asyncio.sleep(LOOK_EVERY)
        self.kill()  # the processes of its pool
        self._read()
        self._stop_reading()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it lives."""
        if self._process is not None and self.is_running:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to its session."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        if self._reads is None:
            return
        with suppress(BlockingIOError):
            while data := os.read(self._reads, READ_AT_ONCE):
                self._printer.feed(self.name, data)
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reads is not None:
            asyncio.get_running_loop().remove_reader(self._reads)
            os.close(self._reads)
            self._reads = None
            self._printer.end(self.name)


class ValkeyChild:
    """The embedded Valkey; it runs before the others are made, since they need its URL."""

    name = "valkey"
    stage = Stage.SERVERS
    stop_seconds = 20.0
    is_vital = True

    def __init__(self, valkey: EmbeddedValkey) -> None:
        self._valkey = valkey

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._valkey.pid

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self._valkey.is_running

    def start(self) -> None:
        """Start it on the same port and data; an answer takes a while, and the workers wait for it anyway."""
        if not self._valkey.is_running:
            self._valkey.spawn()

    async def ended(self) -> str:
        """Wait for its end."""
        while self._valkey.is_running:
            await asyncio.sleep(LOOK_EVERY)
        return f"ended, see {self._valkey.log}"

    def ask_to_end(self) -> None:
        """Send SIGTERM: it writes its data and ends."""
        if self._valkey.is_running:
            os.kill(self._valkey.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._valkey.is_running:
            os.kill(self._valkey.pid, signal.SIGKILL)
