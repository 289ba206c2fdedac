"""The platform on a test's own servers: this process enqueues, real workers run, an operator types."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from click.testing import CliRunner, Result
from redis import Redis
from sqlalchemy import func, select
from sqlmodel import Session, col

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.history.models import DeadLetter
from taskyard.settings.queues import QUEUES, Queue
from taskyard.tasks.sending import send
from taskyard.webhooks.signing.key_vault import new_master_key
from tests.commands import command_of
from tests.databases import Database
from tests.servers import Server
from tests.workers import MINIMAL, Worker

QUEUE_NAMES = [queue.name for queue in QUEUES]
STALLED_MS = "1000"  # a killed worker's task is taken back after this


class MarketPlatform:
    """One broker, one database, and the environment that points to them; see the fixture `platform`."""

    def __init__(self, valkey: Server, database: Database, folder: Path, env: Mapping[str, str]) -> None:
        self.valkey, self.database = valkey, database
        self._folder = folder
        self.env = dict(env)
        self._workers: list[Worker] = []

    def worker(self, name: str = "worker", pool: str = "threads", **env: str) -> Worker:
        """Start a worker of all queues; it is ready when this returns, and stopped at the end of the test."""
        arguments = ("-Q", ",".join(QUEUE_NAMES), "-P", pool, *MINIMAL)
        worker = Worker("tasks", self._folder, name=name, arguments=arguments, env={**self.env, **env})
        self._workers.append(worker)
        return worker.start()

    def send(self, task: str, fields: Mapping[str, Any], **options: Any) -> AsyncResult[Any]:
        """Enqueue by name, as another program does."""
        return send(task, fields, **options)

    def session(self) -> Session:
        """A session on the database."""
        return self.database.session()

    def command(self, group: str, *arguments: str) -> Result:
        """Run a command in this process, as an operator types it."""
        return CliRunner().invoke(command_of(group), arguments)

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters."""
        with self.session() as session:
            return list(session.scalars(select(DeadLetter)))

    def count(self, model: type[Any], **wanted: Any) -> int:
        """How many rows have these values."""
        with self.session() as session:
            query = select(func.count()).select_from(model)
            for name, value in wanted.items():
                query = query.where(col(getattr(model, name)) == value)
            return session.scalar(query) or 0

    def waiting(self, queue: Queue) -> int:
        """How many messages wait in a queue."""
        with Redis.from_url(self.valkey.url) as client:
            return QueueControl(client).counts(queue.name).waiting

    def is_idle(self) -> bool:
        """Whether no queue holds any message."""
        return not self.left()

    def left(self) -> dict[str, int]:
        """How many messages each queue holds that holds any."""
        with Redis.from_url(self.valkey.url) as client:
            counts = {name: QueueControl(client).counts(name) for name in QUEUE_NAMES}
        held = {name: facts.waiting + facts.delayed + facts.active for name, facts in counts.items()}
        return {name: count for name, count in held.items() if count}

    def stop(self) -> None:
        """Stop what runs."""
        for worker in self._workers:
            if worker.is_running:
                worker.kill()


def environment(valkey: Server, database: Database, folder: Path) -> dict[str, str]:
    """The variables of a platform whose receivers and chain nodes listen on loopback."""
    return {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": database.url,
        "TASKYARD_DATA": str(folder),
        "LOG_FORMAT": "json",
        "WORKER_QUEUE_STALLED_INTERVAL": STALLED_MS,
        "WORKER_SHUTDOWN_SECONDS": "1",
        "WEBHOOK_SECRET_KEYS": new_master_key("test").reveal(),
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_ALLOW_NETS": "127.0.0.0/8",
    }
