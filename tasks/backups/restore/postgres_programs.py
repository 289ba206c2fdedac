"""Run PostgreSQL's programs with a deadline and without secrets in their arguments."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.backups.errors import BackupConfigError

POLL_INTERVAL = 0.2  # seconds between two looks at whether the run is still wanted
VERSION_LIMIT = 10  # seconds
TERM_LIMIT = 5  # seconds between SIGTERM and SIGKILL
MOST_OUTPUT = 65_536  # bytes of its error output that are read
LONGEST_FAULT = 300  # characters
_FAULT_WORDS = ("error:", "ERROR:", "FATAL:", "restore: warning:")  # a warning of the server's own is none
# Variables that are passed on; all others, DATABASE_URL for one, are withheld.
_KEPT = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY")


@dataclass(frozen=True, slots=True)
class ProgramExit:
    """How a program ended."""

    exit_code: int  # negative: by that signal
    fault: str  # what it said of its error, without rows of data; empty: it succeeded and warned of nothing
    is_late: bool  # it was ended at its deadline
    output: str = ""  # its whole error output, bounded; it can quote rows, so it is for the operator's terminal only


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """Finds and runs the programs."""

    folder: Path | None = None  # None: those of PATH
    launcher: Sequence[str] = ()  # prefix of every command; ends the program when this process dies

    def path(self, name: str) -> str:
        """
        Return the program's path.

        Raises:
            BackupConfigError: There is none.
        """
        found = shutil.which(name, path=str(self.folder) if self.folder else None)
        if found is None:
            raise BackupConfigError(f"{name} not found; install PostgreSQL's client or set BACKUP_PG_BIN to its folder")
        return found

    def version(self, name: str) -> str:
        """Return the program's name and version, such as "pg_restore 18.6"."""
        command = [self.path(name), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=VERSION_LIMIT).stdout  # noqa: S603 - programs of PostgreSQL, no shell
        found = re.search(r"\d+(\.\d+)*", said)
        return f"{name} {found[0] if found else '?'}"

    def run(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        limit: float,
        wanted: Callable[[], bool],
        feed: Iterable[bytes] | None = None,
    ) -> ProgramExit:
        """
        Run a command to its end.

        Args:
            command: The program's name and its arguments; no secret may be in them.
            env: Variables in addition to the few that are passed on.
            limit: Seconds; then it is ended.
            wanted: Polled; when it returns False, the command is ended.
            feed: What it reads from its standard input; an error of this iterator ends the command and is raised.
        """
        argv = [*self.launcher, self.path(command[0]), *command[1:]]
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603 - programs of PostgreSQL, no shell
                argv,
                stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**kept, "LC_ALL": "C", **env},
                start_new_session=True,  # its own children end with it
            )
            feeder = _InputFeeder(process, feed or ())
            try:
                is_late = _wait(process, limit, lambda: wanted() and feeder.error is None)
            finally:
                _end(process)
                feeder.join()
            if feeder.error is not None and not is_late:
                raise feeder.error
            output = _read(errors)
            return ProgramExit(process.returncode, _fault(output, process.returncode), is_late, output)


class _InputFeeder:
    """Writes to a program's standard input from a thread, so that its deadline holds while it does not read."""

    def __init__(self, process: "subprocess.Popen[bytes]", feed: Iterable[bytes]) -> None:
        self.error: Exception | None = None
        self._pipe: IO[bytes] | None = process.stdin
        self._feed = feed
        self._thread = threading.Thread(target=self._write, name="backup-feeder", daemon=True)
        if self._pipe is not None:
            self._thread.start()

    def join(self) -> None:
        """Wait for the thread; the program has ended, so a write fails at once."""
        if self._pipe is not None:
            self._thread.join()

    def _write(self) -> None:
        assert self._pipe is not None  # noqa: S101 - the thread starts only with a pipe
        try:
            with suppress(BrokenPipeError), self._pipe:  # broken: it ended early, and says why on its own
                for piece in self._feed:
                    self._pipe.write(piece)
        except Exception as error:  # noqa: BLE001 - a thread's edge: raised again by `run`
            self.error = error


def _wait(process: "subprocess.Popen[bytes]", limit: float, wanted: Callable[[], bool]) -> bool:
    """Wait for its end; return whether it is late."""
    deadline = time.monotonic() + limit
    while wanted():
        left = deadline - time.monotonic()
        if left <= 0:
            return True
        try:
            process.wait(min(left, POLL_INTERVAL))
        except subprocess.TimeoutExpired:
            continue
        return False
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the program with its children: SIGTERM, then SIGKILL."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(TERM_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read(MOST_OUTPUT).decode(errors="replace")


def _fault(output: str, exit_code: int) -> str:
    """Return the first line that names an error; DETAIL, CONTEXT and the statements after it can hold rows."""
    lines = output.splitlines()
    for word in _FAULT_WORDS:
        found = next((line for line in lines if word in line), None)
        if found is not None:
            return found.strip()[:LONGEST_FAULT]
    if exit_code < 0:
        return f"ended by signal {-exit_code}"
    if exit_code == 0:
        return ""
    return lines[0].strip()[:LONGEST_FAULT] if lines else f"exit code {exit_code}"
