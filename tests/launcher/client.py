"""Start `celery` processes through the launcher of this test process, and look after them as `subprocess` would."""

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import RLock
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent.parent
READ_AT_IMPORT = ("REMAP_SIGTERM",)  # variables that what is imported already would not see
TOLD_WITHIN = 10  # seconds from the end of a process until it is known


class Launcher:
    """The other end of :mod:`tests.launcher.server`; threads may share it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.launcher.server"]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=ROOT)
        self._socket, self._rest = ours, b""
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        self._lock = RLock()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> int:
        """Start one process and return its id."""
        asked = {"arguments": list(arguments), "env": dict(env), "folder": str(folder), "log": str(log)}
        with self._lock:
            self._socket.sendall(f"{json.dumps(asked)}\n".encode())
            while not self._started:
                self._read(None)
            return self._started.pop()

    def exit_code(self, pid: int, limit: float = 0) -> int | None:
        """How a process ended; None: it has not, `limit` seconds from now."""
        until = monotonic() + limit
        while True:
            with self._lock:
                self._read(0)
                if pid in self._codes:
                    return self._codes[pid]
                left = until - monotonic()
                if left <= 0:
                    return None
                self._read(min(left, 0.05))  # then others may read what they wait for

    def close(self) -> None:
        """End it, and with it all that it has started."""
        self._socket.close()
        self._process.wait()

    def _read(self, timeout: float | None) -> None:
        self._socket.settimeout(timeout)
        try:
            got = self._socket.recv(65536)
        except (BlockingIOError, TimeoutError):
            return
        finally:
            self._socket.settimeout(None)
        assert got, "the launcher has ended"
        *lines, self._rest = (self._rest + got).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "started" in said:
                self._started.append(said["started"])
            else:
                self._codes[said["ended"]] = said["code"]


class LaunchedProcess:
    """A process group that runs `celery`, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
        """Start it."""
        self._launcher = shared_launcher()
        self.pid = self._launcher.start(arguments, env, folder, log)

    def poll(self) -> int | None:
        """How it ended; None: it runs."""
        code = self._launcher.exit_code(self.pid)
        if code is None and not _exists(self.pid):  # it is being told
            return self._launcher.exit_code(self.pid, TOLD_WITHIN)
        return code

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end; return how it ended.

        Raises:
            subprocess.TimeoutExpired: It runs after `timeout` seconds.
        """
        code = self._launcher.exit_code(self.pid, float("inf") if timeout is None else timeout)
        if code is None:
            raise subprocess.TimeoutExpired("celery", timeout or 0)
        return code


@cache
def shared_launcher() -> Launcher:
    """The launcher of this test process; it is started when it is first needed."""
    made = Launcher()
    atexit.register(made.close)
    return made


def can_launch(env: Mapping[str, str]) -> bool:
    """Whether a process with these variables is the same as one that imports all by itself."""
    return env["PYTHONPATH"] == str(ROOT) and not any(name in env for name in READ_AT_IMPORT)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
