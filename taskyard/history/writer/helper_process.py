"""
The writer's helper: a process that writes while much waits, so that the worker's tasks keep their interpreter.

A worker's own thread writes what little there is. When more waits, it starts this module with a TOKEN, which
shares the thread's lease, gives way to the tasks where processors are short, and ends when nothing came for a while.
"""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic

import structlog

from taskyard.broker.server.client import shared_client
from taskyard.database.engine import current_engine
from taskyard.history.writer.loop import Pace, Writer
from taskyard.logging import configure_logging
from taskyard.parent_death_signal import tied_to_parent
from taskyard.settings.loading import current_settings

log = structlog.get_logger("taskyard.history.writer.helper_process")

ROOT = Path(__file__).resolve().parents[3]
LOOK_EVERY = 0.2  # seconds between two looks at whether it lives
STOP_LIMIT = 0.5  # seconds from SIGTERM to SIGKILL; the worker waits for our thread a second in all
AFTER_A_FAILURE = 60.0  # seconds until the next one is started
NICENESS = 5  # gives it a quarter of a processor beside a worker that wants the whole of it
PACE = replace(Pace(), idle=timedelta(seconds=30))


class Helper:
    """Starts the process, waits for its end, and does not insist when it fails."""

    def __init__(self) -> None:
        self._not_before = 0.0  # of `monotonic`

    def work(self, token: str, stop: threading.Event) -> bool:
        """
        Let a process write, with the lease of this token, until it ends or `stop` is set.

        Returns:
            Whether there was one, however it ended: it may have read entries and not written them. After a failure
            there is none for a while.
        """
        if monotonic() < self._not_before:
            return False
        tied = tied_to_parent()
        command = [*tied, sys.executable, "-m", "taskyard.history.writer.helper_process", token]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths}
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)  # noqa: S603 - a fixed program, no shell
        except OSError as error:
            self._give_up(str(error))
            return False
        while process.poll() is None:
            if stop.wait(LOOK_EVERY):
                _end(process)
                return True
        if process.returncode != 0:
            self._give_up(f"exit code {process.returncode}")
        return True

    def _give_up(self, reason: str) -> None:
        self._not_before = monotonic() + AFTER_A_FAILURE
        log.warning("audit.helper_failed", reason=reason)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()  # what it had not committed, the next writer repeats
        process.wait()


def main() -> None:
    """Write until nothing came for a while, or the worker wants the end."""
    settings = current_settings()
    configure_logging(settings)
    os.nice(NICENESS)
    client = shared_client(settings.redis_url)
    writer = Writer(client, current_engine(), settings.taskyard_key_prefix, PACE, token=sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: writer.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the worker, which ends us
    writer.run()


if __name__ == "__main__":
    main()
