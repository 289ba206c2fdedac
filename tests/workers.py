"""Real Celery workers for tests: a process group with an environment, a log file and the means to hurt it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from taskyard.parent_death_signal import tied_to_parent
from tests.launcher.client import LaunchedProcess, can_launch
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
READY_LIMIT = 90  # seconds
STOP_LIMIT = 20  # seconds until SIGKILL
MINIMAL = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Worker:
    """
    One `celery -A <app> worker` in a process group of its own.

    Give each worker of a test its own `name`: it becomes the node name and the log file's name.
    """

    def __init__(
        self,
        app: str,
        folder: Path,
        *,
        name: str = "worker",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare, but do not start; it runs in the first folder of `PYTHONPATH`, if `env` has one."""
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        self._arguments = ["-A", app, "worker", "-n", f"{name}@test", "-l", "INFO", *arguments]
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        self._process: subprocess.Popen[bytes] | LaunchedProcess | None = None

    @property
    def pid(self) -> int:
        """The main process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the main process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        assert self._process is not None, "not started"
        return self._process.poll()

    def start(self, *, wait_ready: bool = True) -> Self:
        """Start it, by default waiting until it says that it is ready."""
        with self.log.open("ab") as log:
            written = log.tell()
            self._process = self._launch() if can_launch(self._env) else self._start_anew(log)
        if wait_ready:
            self.wait_ready(written)
        return self

    def _launch(self) -> LaunchedProcess:
        return LaunchedProcess(self._arguments, self._env, ROOT, self.log)

    def _start_anew(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """With an interpreter of its own; it does not outlive the tests either, even when they are killed."""
        return subprocess.Popen(
            [*tied_to_parent(signal.SIGKILL), sys.executable, "-m", "celery", *self._arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=self._env,
            cwd=self._env["PYTHONPATH"].split(os.pathsep)[0],
            start_new_session=True,
        )

    def wait_ready(self, after_byte: int = 0) -> None:
        """Wait until the log, from `after_byte` on, says that the worker is ready."""

        def says_ready() -> bool:
            assert self.is_running, f"the worker ended with {self.exit_code}:\n{self.tail()}"
            return b" ready." in self.log.read_bytes()[after_byte:]

        wait_for(says_ready, READY_LIMIT, "the worker is ready")

    def term(self) -> None:
        """SIGTERM to the main process: a warm shutdown (soft with REMAP_SIGTERM=SIGQUIT)."""
        os.kill(self.pid, signal.SIGTERM)

    def interrupt(self) -> None:
        """SIGINT to all its processes, as Ctrl-C in a terminal does."""
        self._signal_all(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to all its processes at once, and wait for the main one."""
        self._signal_all(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(STOP_LIMIT)

    def suspend(self) -> None:
        """SIGSTOP to all its processes."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to all its processes."""
        self._signal_all(signal.SIGCONT)

    def children(self) -> list[psutil.Process]:
        """The pool's processes."""
        return psutil.Process(self.pid).children()

    def wait_ended(self, limit_seconds: float = STOP_LIMIT) -> int:
        """Wait for its end; return the exit code."""
        assert self._process is not None
        return self._process.wait(limit_seconds)

    def stop(self) -> None:
        """End it: SIGTERM, after 20 s SIGKILL. Nothing happens when it does not run."""
        if not self.is_running:
            return
        self.resume()
        self.term()
        try:
            self.wait_ended()
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 30) -> str:
        """The end of its log, for messages of failed tests."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        elif self.is_running:
            self.kill()

    def _signal_all(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            assert not self.is_running
