"""The processes of the demo: an embedded Valkey, a worker, beat and Flower, all gone when the demo is."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from taskyard.broker.server.valkey import EmbeddedValkey
from taskyard.parent_death_signal import tied_to_parent

READY_LIMIT = 90.0  # seconds, on a slow and busy machine
STOP_LIMIT = 15.0  # seconds until SIGKILL
interrupted = threading.Event()  # an exception from a signal's handler is lost when it hits Python's own clean-up
ORDERS = ("--include", "scripts.demo.orders")  # tasks of the demo's flow
LONGEST_WORDS = 300  # characters of a log line in an error


class StageError(RuntimeError):
    """A process of the demo did not start or ended by itself; the message names its log."""


@dataclass(slots=True)
class Program:
    """One `celery -A tasks ...` in a process of its own, which ends when the demo ends, however it ends."""

    name: str
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it wrote."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it."""
        launcher = tied_to_parent()
        command = [*launcher, sys.executable, "-m", "celery", "-A", "tasks", *self.arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a fixed program, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                start_new_session=True,  # Ctrl-C is for the demo, which ends its processes in order
            )

    def check(self) -> None:
        """
        Make sure that it runs.

        Raises:
            StageError: It ended.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            raise StageError(f"{self.name} ended with exit code {code}: {self._last_words()} (its log: {self.log})")

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def wait_ended(self, limit: float) -> None:
        """Wait for its end; after ``limit`` seconds kill it with all that it started."""
        if self._process is None:
            return
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() or ["it wrote nothing"]
        try:
            last = str(json.loads(lines[-1])["event"])
        except (ValueError, KeyError, TypeError):  # not a line of our log format
            last = lines[-1]
        return last[:LONGEST_WORDS]


class Stage:
    """All servers and processes of one demo, as a context manager."""

    def __init__(self, folder: Path, valkey: EmbeddedValkey) -> None:
        """Prepare; nothing starts yet. `valkey` is running and stays the caller's."""
        self._port = free_port()
        self._password = secrets.token_urlsafe(12)
        # The password travels in the environment: a command line can be read by every user of the machine.
        access = {"FLOWER_BASIC_AUTH": f"demo:{self._password}"}
        self._valkey = valkey
        self._worker = Program("worker", ("worker", "--hostname", "demo@localhost", "--events", *ORDERS), folder)
        self._beat = Program("beat", ("beat", "--pidfile="), folder)
        self._flower = Program("flower", ("flower", "--address=127.0.0.1", f"--port={self._port}"), folder, access)
        self._programs = (self._worker, self._beat, self._flower)

    @property
    def flower_url(self) -> str:
        """Flower's address, with the user and the password that were made up for this demo."""
        return f"http://demo:{self._password}@127.0.0.1:{self._port}/"

    def start(self) -> Self:
        """
        Start worker, beat and Flower; returns when the worker takes tasks and Flower answers.

        Raises:
            StageError: One of them ended, or they were not ready within 90 s.
        """
        for program in self._programs:
            program.start()
        deadline = monotonic() + READY_LIMIT
        while not (self._worker_is_ready() and self._flower_answers()):
            self.check()
            if monotonic() > deadline:
                raise StageError(f"not ready within {READY_LIMIT:g} s; see the logs in {self._worker.log.parent}")
            sleep(0.1)
        return self

    def check(self) -> None:
        """
        Make sure that all run.

        Raises:
            StageError: One ended.
            KeyboardInterrupt: The demo is to end, and where that was first said nobody heard it.
        """
        if interrupted.is_set():
            raise KeyboardInterrupt
        for program in self._programs:
            program.check()
        if not self._valkey.is_running:
            raise StageError(f"the Valkey server ended (its log: {self._valkey.log})")

    def stop(self) -> None:
        """End all, at the same time; they get 15 s."""
        for program in self._programs:
            program.ask_to_end()
        deadline = monotonic() + STOP_LIMIT
        for program in self._programs:
            program.wait_ended(max(deadline - monotonic(), 0.1))

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _worker_is_ready(self) -> bool:
        return b" ready." in self._worker.log.read_bytes()

    def _flower_answers(self) -> bool:
        request = Request(f"http://127.0.0.1:{self._port}/healthcheck")
        try:
            with urlopen(request, timeout=2) as response:  # noqa: S310 - a fixed loopback address
                return bool(response.status == 200)  # noqa: PLR2004 - OK
        except (URLError, OSError):
            return False


def free_port() -> int:
    """Return a TCP port on loopback that nobody uses at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
