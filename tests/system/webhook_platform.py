"""A running platform for one test: broker, database and workers. The test itself is the app, in the same process."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from threading import Barrier
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from taskyard.database.engine import open_session
from taskyard.history.models import DeadLetter
from taskyard.launch.programs import ASYNCIO_POOL, CELERY_POOL_NAMES
from taskyard.tasks.dead_letters.redrive import redrive
from taskyard.webhooks.models import Delivery
from taskyard.webhooks.outbox import emit
from taskyard.webhooks.tasks import deliver, sweep
from tests.app_broker import forget_settings, use_broker
from tests.databases import Database
from tests.nodes.nodes import Broker, WorkerNode, start_worker
from tests.waiting import wait_for
from tests.webhooks.webhook_rows import ENVIRONMENT, WebhookRows
from tests.workers import MINIMAL, ROOT

QUEUES = "webhook-deliveries,webhook-slow,maintenance,dead-letter"
FAST = {
    "WEBHOOK_RETRY_DELAYS": "0.1,0.1,0.1,0.1,0.1",
    "WEBHOOK_THROTTLE_FLOOR": "0",
    "WEBHOOK_TOTAL_TIMEOUT": "5",
    "WEBHOOK_CONNECT_TIMEOUT": "2",
    "WEBHOOK_SWEEP_INTERVAL": "0.5",
    "WEBHOOK_BREAKER_FAILURES": "1000",
    "WEBHOOK_DISABLE_EXHAUSTED": "1000",
    "WORKER_QUEUE_STALLED_INTERVAL": "2000",
    "WORKER_SHUTDOWN_SECONDS": "1",
}
LIMIT = 80  # seconds; workers start slowly on a busy machine
SWEEP_EVERY = 25  # looks of `wait_for`: half a second


class WebhookPlatform:
    """What a test needs of the platform; a context manager that ends all that it started."""

    def __init__(self, database: Database, broker: Broker, client: Any, folder: Path, **environ: str) -> None:
        self.database, self.broker, self.folder = database, broker, folder
        self._client = client
        tuning = {**FAST, **environ}
        self.webhook_rows = WebhookRows(database, **tuning)
        self.env = {
            **ENVIRONMENT,
            **tuning,
            "REDIS_URL": broker.url,
            "DATABASE_URL": database.url,
            "TASKYARD_DATA": str(folder),
        }
        self._open = ExitStack()
        self._looks = count()

    def __enter__(self) -> Self:
        patch = self._open.enter_context(pytest.MonkeyPatch.context())
        for name, value in self.env.items():
            patch.setenv(name, value)
        self._open.callback(forget_settings)
        forget_settings()
        use_broker(self.broker.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def worker(self, name: str = "worker", slots: int = 8, pool: str = "threads", *, root: Path = ROOT) -> WorkerNode:
        """Start a worker for all our queues, on the code in `root`; it takes its first task in a few seconds."""
        words = ["-A", "tasks", "worker", "-n", f"{name}@test", "-l", "INFO", *MINIMAL]
        words += ["-P", CELERY_POOL_NAMES.get(pool, pool), "-Q", QUEUES, "-c", str(slots)]
        env = {**self.env, "CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL}
        worker = start_worker(self._client, words, env, root)
        self._open.callback(self._end, worker, name)
        return worker

    def emit(self, times: int = 1, event_type: str = "market.resolved", data: Any = None) -> list[str]:
        """Emit events, each in a transaction of its own; return their ids."""
        ids = []
        for _ in range(times):
            with open_session() as session, session.begin():
                ids.append(emit(session, event_type, data))
        return ids

    def emit_together(self, times: int, event_type: str = "market.resolved", *, rolls_back: bool = False) -> list[str]:
        """Emit events in one transaction."""
        with open_session() as session:
            ids = [emit(session, event_type, {"n": number}) for number in range(times)]
            if rolls_back:
                session.rollback()
            session.commit()
        return ids

    def emit_and_die(self, times: int) -> int:
        """Let another app commit events and be killed in its commit's hook; return its exit code."""
        command = [sys.executable, "-m", "tests.system.app", str(times)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, cwd=ROOT, check=False, timeout=90).returncode

    def redrive(self, letter_id: UUID, times: int) -> list[str]:
        """Redrive one dead letter from so many threads at once; return the run ids that they got."""
        start = Barrier(times)

        def one(number: int) -> str:
            with open_session() as session:
                start.wait(20)
                return str(redrive(session, letter_id, by=f"operator-{number}", reason="mended").id)

        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(one, range(times)))

    def send_by_hand(self, delivery_id: UUID) -> None:
        """Ask for one manual attempt."""
        deliver.delay(delivery_id=delivery_id, manual_by="ann")

    def states(self) -> dict[str, int]:
        """Count the deliveries by state."""
        with self.database.session() as session:
            rows = session.execute(select(col(Delivery.state), func.count()).group_by(col(Delivery.state))).all()
            return {str(state): int(number) for state, number in rows}

    def wait_for_states(self, limit_seconds: float = LIMIT, *, sweeping: bool = False, **wanted: int) -> None:
        """Wait until the deliveries are in exactly these states; ``sweeping``: with the sweeper at work."""
        wait_for(
            lambda: (not sweeping or self.sweep_now_and_then()) and self.states() == wanted,
            limit_seconds,
            f"deliveries are {wanted}",
        )

    def wait_for_dead_letters(self, number: int, limit_seconds: float = LIMIT) -> list[DeadLetter]:
        """Wait until there are so many dead letters."""
        wait_for(lambda: len(self.dead_letters()) >= number, limit_seconds, f"{number} dead letters")
        return self.dead_letters()

    def dead_letters(self) -> list[DeadLetter]:
        """Read the dead letters, oldest first."""
        with self.database.session() as session:
            return list(session.scalars(select(DeadLetter).order_by(col(DeadLetter.failed_at))))

    def delivery_of(self, event_id: str) -> UUID:
        """The only delivery of an event."""
        with self.database.session() as session:
            return session.scalars(select(col(Delivery.id)).where(col(Delivery.event_id) == event_id)).one()

    def sweep_now_and_then(self) -> bool:
        """Enqueue a sweep at each twenty-fifth look, as the timetable would; always true."""
        if next(self._looks) % SWEEP_EVERY == 0:
            sweep.delay()
        return True

    def _end(self, worker: WorkerNode, name: str) -> None:
        (self.folder / f"{name}.log").write_text(worker.logs())  # for whoever looks into a failure
        worker.teardown()
