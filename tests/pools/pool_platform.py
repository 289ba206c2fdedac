"""One broker, one database and the workers that a test starts on them."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from sqlmodel import select

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.history.models import DeadLetter, Run
from taskyard.launch.programs import CELERY_POOL_NAMES
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

LIMIT = 60  # seconds; the machine may be busy
POOLS = ("asyncio", "prefork", "threads", "solo")
OUR_POOL = {"CELERY_CUSTOM_WORKER_POOL": "taskyard.pools.asyncio_pool:TaskPool"}


class PoolPlatform:
    """Starts workers, and reads what their tasks noted."""

    def __init__(self, broker: Server, notes: Server, database: Database, folder: Path) -> None:
        self.records = notes.client()
        self._broker = redis.Redis.from_url(broker.url)
        self.control = QueueControl(self._broker)
        self._database = database
        self._env = {"REDIS_URL": broker.url, "RECORDS_URL": notes.url, "DATABASE_URL": database.url, **OUR_POOL}
        self._env |= {"TASKYARD_DATA": str(folder), "LOG_FORMAT": "json", "WORKER_QUEUE_STALLED_INTERVAL": "2000"}
        self._folder = folder
        self._stack = ExitStack()

    def worker(
        self, pool: str = "asyncio", slots: int = 10, *, module: str = "tests.pools.app", **environment: str
    ) -> Worker:
        """A started worker of the app in `module`."""
        name = CELERY_POOL_NAMES.get(pool, pool)
        options = ("-P", name, "-c", str(slots), "-Q", "celery,dead-letter", *MINIMAL)
        worker = Worker(module, self._folder, arguments=options, env={**self._env, **environment})
        self._stack.push(worker.start())
        return worker

    def notes(self, word: str = "") -> list[str]:
        """What tasks noted, without the word that they begin with."""
        lines = [str(line) for line in self.records.lrange("notes", 0, -1)]
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(word)]

    def wait_notes(self, word: str, count: int = 1) -> list[str]:
        """Wait for so many notes."""
        wait_for(lambda: len(self.notes(word)) >= count, LIMIT, f"{count} x {word}")
        return self.notes(word)

    def wait_done(self) -> None:
        """Wait until no message is left."""

        def is_done() -> bool:
            counts = self.control.counts("celery")
            return counts.waiting + counts.active + counts.delayed == 0

        wait_for(is_done, LIMIT, "no message is left")

    def dead_letters(self) -> list[tuple[str, str]]:
        """The run ids and reasons of the dead letters."""
        with self._database.session() as session:
            rows = session.exec(select(DeadLetter)).all()
            return [(row.run_id, row.reason) for row in rows]

    def buried(self) -> Sequence[DeadLetter]:
        """The dead letters."""
        with self._database.session() as session:
            return session.exec(select(DeadLetter)).all()

    def failures(self) -> dict[str, tuple[str, str]]:
        """Class and text of the errors of all runs that the history has as failed."""
        with self._database.session() as session:
            rows = session.exec(select(Run).where(Run.state == "failed")).all()
            return {run.id: (run.error_type or "", run.error_message or "") for run in rows}

    def wait_dead_letters(self, count: int) -> None:
        """Wait for so many dead letters."""
        wait_for(lambda: len(self.dead_letters()) >= count, LIMIT, f"{count} dead letters")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._broker.close()
        self.records.close()
