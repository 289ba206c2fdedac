"""The processes that `up` supervises: Celery programs, and the embedded Valkey."""

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
from taskyard.launch.log_prefixes import LogPrefixer
from taskyard.parent_death_signal import tied_to_parent

POLL_INTERVAL = 0.1  # seconds between two checks whether it is running
READ_AT_ONCE = 65_536  # bytes


class ShutdownStage(IntEnum):
    """Order of shutdown: producers first, then workers, then what they depend on."""

    BEAT = 1
    WORKERS = 2
    WATCHERS = 3
    SERVERS = 4


@dataclass(frozen=True, slots=True)
class Program:
    """A command line, and how its process is supervised."""

    name: str
    command: tuple[str, ...]
    stage: ShutdownStage
    stop_seconds: float  # from SIGTERM to SIGKILL
    environment: Mapping[str, str] = field(default_factory=dict)
    is_vital: bool = True  # False: the others run without it, and its exit code does not count
    orphan_signal: signal.Signals = signal.SIGTERM  # sent by the kernel when `up` is killed


class ManagedProcess(Protocol):
    """A supervised process; start it from the main thread, whose death signals its children."""

    name: str
    stage: ShutdownStage
    stop_seconds: float
    is_vital: bool

    @property
    def pid(self) -> int:
        """Its process id; 0 before the first start."""

    @property
    def is_running(self) -> bool:
        """Whether it is running."""

    def start(self) -> None:
        """
        Start it.

        Raises:
            OSError: It cannot be started.
        """

    async def wait_exited(self) -> str:
        """Wait until it exits, kill its remaining children, and describe how it exited."""

    def terminate(self) -> None:
        """Send SIGTERM, if it is running."""

    def kill(self) -> None:
        """Send SIGKILL to it and its children."""


class CeleryProcess:
    """A Celery program in a session of its own, so that Ctrl-C in the terminal reaches only `up`."""

    def __init__(self, program: Program, printer: LogPrefixer) -> None:
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
        """Whether it is running."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and forward its output."""
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        wrapper = tied_to_parent(self._program.orphan_signal)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
                [*wrapper, *self._program.command],
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
        asyncio.get_running_loop().add_reader(self._reads, self._forward)

    async def wait_exited(self) -> str:
        """Wait until it exits, kill its remaining children, and describe how it exited."""
        assert self._process is not None  # noqa: S101 - it was started
        while (code := self._process.poll()) is None:
            await asyncio.sleep(POLL_INTERVAL)
        self.kill()  # the processes of its pool
        self._forward()
        self._stop_reading()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def terminate(self) -> None:
        """Send SIGTERM, if it is running."""
        if self._process is not None and self.is_running:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to its session."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _forward(self) -> None:
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


class ValkeyProcess:
    """The embedded Valkey; already running when the others are created, since they need its URL."""

    name = "valkey"
    stage = ShutdownStage.SERVERS
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
        """Whether it is running."""
        return self._valkey.is_running

    def start(self) -> None:
        """Start it on the same port and data; returns before it accepts connections, since workers retry."""
        if not self._valkey.is_running:
            self._valkey.spawn()

    async def wait_exited(self) -> str:
        """Wait until it exits."""
        while self._valkey.is_running:
            await asyncio.sleep(POLL_INTERVAL)
        return f"exited, see {self._valkey.log}"

    def terminate(self) -> None:
        """Send SIGTERM: it saves its data and exits."""
        if self._valkey.is_running:
            os.kill(self._valkey.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._valkey.is_running:
            os.kill(self._valkey.pid, signal.SIGKILL)
