"""A project of somebody's own: a module with an app, a database, and what is run in its folder."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fixtures.celery_command import LIMIT, CommandResult
from tests.servers import Server
from tests.workers import MINIMAL, ROOT, Worker

HANG = 30  # seconds
APP = """
import logging
import os

from taskyard import Payload, Queue, Taskyard, task

app = Taskyard("{name}")
NOTES = Queue("notes", profile="io")


class Note(Payload):
    text: str


@task("{name}.note", Note, queue=NOTES)
def note(payload: Note) -> None:
    logging.getLogger("{name}").info("said %s by %d", payload.text, os.getpid())
    print(payload.text)
"""


class Project:
    """Ends the processes that it started when its block ends."""

    def __init__(self, name: str, folder: Path, server: Server, more: str = "") -> None:
        """`more` is further code of its module."""
        folder.mkdir()
        (folder / f"{name}.py").write_text(APP.format(name=name) + more)
        self.name, self.folder, self.server = name, folder, server
        self.database = folder / "its.db"
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        ended = self("db", "upgrade")
        assert ended.code == 0, ended.err
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    @property
    def env(self) -> dict[str, str]:
        """The environment of its processes; all but the database is as for any project."""
        return {
            "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            "REDIS_URL": self.server.url,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "LOG_FORMAT": "json",
            "WORKER_QUEUE_STALLED_INTERVAL": "3000",  # a worker that ended counts as a consumer no longer
        }

    def __call__(self, *words: str, **more: str) -> CommandResult:
        """Run `celery -A <name> ...` to its end."""
        return self._run("-m", "celery", "-A", self.name, *words, **more)

    def sends(self, *texts: str, **more: str) -> CommandResult:
        """Publish once, or each of these texts, in a process of its own."""
        return self._run(
            "-c", f"import {self.name} as it\nfor text in {texts or ('x',)}: it.note.delay(text=text)", **more
        )

    def runs(self, code: str, **more: str) -> CommandResult:
        """Run code of its own to the end; what hangs is ended with the traces of its threads."""
        guarded = f"import faulthandler; faulthandler.dump_traceback_later({HANG}, exit=True)\n{code}"
        return self._run("-c", guarded, **more)

    def worker(self, *arguments: str, **more: str) -> Worker:
        """Start a worker."""
        words = ("-P", "solo", *MINIMAL, *arguments)
        return self._ends.enter_context(Worker(self.name, self.folder, arguments=words, env={**self.env, **more}))

    def doctor(self) -> dict[str, str]:
        """What `doctor` says of the platform."""
        found = json.loads(self("doctor", "--json").out)["findings"]
        return next(finding for finding in found if finding["name"] == "platform")

    def ends_by_itself(self, *words: str) -> CommandResult:
        """Run a command that would go on for ever."""
        with subprocess.Popen(
            self._command("-m", "celery", "-A", self.name, *words),
            env={**os.environ, **self.env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return CommandResult(process.returncode, out, err)

    def _run(self, *words: str, **more: str) -> CommandResult:
        ended = subprocess.run(
            self._command(*words),
            env={**os.environ, **self.env, **more},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return CommandResult(ended.returncode, ended.stdout, ended.stderr)

    @staticmethod
    def _command(*words: str) -> list[str]:
        return [sys.executable, "-W", "ignore", *words]
