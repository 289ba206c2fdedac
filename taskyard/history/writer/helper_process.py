"""
The writer's helper: a process that works off a large backlog, so that the worker's tasks keep the GIL.

A thread of the worker writes small backlogs. For a larger one it starts this module with the TOKEN of its lease. The
helper has a lower CPU priority than the tasks, and exits after some time without events.
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
from taskyard.history.writer.event_writer import EventWriter, WriterTuning
from taskyard.logging import configure_logging
from taskyard.parent_death_signal import tied_to_parent
from taskyard.settings.loading import current_settings

log = structlog.get_logger("taskyard.history.writer.helper_process")

ROOT = Path(__file__).resolve().parents[3]
POLL_INTERVAL = 0.2  # seconds between checks whether it is alive
STOP_LIMIT = 0.5  # seconds from SIGTERM to SIGKILL; the worker waits one second for our thread in all
AFTER_A_FAILURE = 60.0  # seconds until the next one is started
NICENESS = 5  # about a quarter of a CPU next to a worker that wants all of it
TUNING = replace(WriterTuning(), idle=timedelta(seconds=30))


class WriterHelper:
    """Starts the helper process and waits for it; after a failure, not again for a minute."""

    def __init__(self) -> None:
        self._not_before = 0.0  # of `monotonic`

    def work(self, token: str, stop: threading.Event) -> bool:
        """
        Run a helper with the lease of this token until it exits or `stop` is set.

        Returns:
            Whether one ran, however it ended: it may have read entries without writing them.
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
            if stop.wait(POLL_INTERVAL):
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
        process.kill()  # the next writer repeats what was not committed
        process.wait()


def main() -> None:
    """Write until idle for some time, or until the worker stops us."""
    settings = current_settings()
    configure_logging(settings)
    os.nice(NICENESS)
    client = shared_client(settings.redis_url)
    writer = EventWriter(client, current_engine(), settings.taskyard_key_prefix, TUNING, token=sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: writer.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the worker, which stops us
    writer.run()


if __name__ == "__main__":
    main()
