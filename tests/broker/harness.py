"""A test harness: one server, an app that sends to it, workers that take from it, and what they recorded."""

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kombu.pools
import redis

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.scripts.runner import Keyspace
from tests.broker.app import RECORDS, Settings, make_app, started
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

POOLS = ("prefork", "threads", "solo")
QUEUES = "celery,dead-letter"


class BrokerHarness:
    """Sends, starts workers and looks; ends all that it started."""

    def __init__(self, server: Server, recorder: Server, folder: Path, **settings: Any) -> None:
        """Tasks record in `recorder`: a test may hurt `server`, and must still know what happened."""
        self.server = server
        self.url = settings.pop("url", server.url)
        self.settings = Settings(redis_url=self.url, **settings)
        self.app = make_app(self.settings, task_publish_retry=False)
        self.broker = server.client()
        self.records = recorder.client()
        self._recorder = recorder
        self.prefix = self.settings.taskyard_key_prefix
        self.raw = redis.Redis(port=server.port)  # answers with bytes
        self.space = Keyspace(self.prefix, writes_events=True)
        self.control = QueueControl(self.raw, self.prefix)
        self._folder = folder
        self._stack = ExitStack()

    def worker(self, pool: str = "threads", concurrency: int = 4, **options: Any) -> Worker:
        """
        A started worker.

        `name`, `url`, `queues`, `lease_ms`, `wait_ready`, `module` (of the app), `more` (arguments) and environment
        variables as options.
        """
        lease_ms = options.pop("lease_ms", int(self.settings.worker_queue_stalled_interval / timedelta(milliseconds=1)))
        name, queues = options.pop("name", "worker"), options.pop("queues", QUEUES)
        ready, minimal = options.pop("wait_ready", True), options.pop("minimal", True)
        more = (*(MINIMAL if minimal else ()), *options.pop("more", ()))
        module = options.pop("module", "tests.broker.app")
        env = {
            "TEST_BROKER_URL": options.pop("url", self.url),
            "RECORDS_URL": self._recorder.url,
            "LEASE_MS": str(lease_ms),
            "MAX_STALLS": str(self.settings.worker_max_stalls),
            "TRANSPORT": self.settings.taskyard_transport,
            "KEY_PREFIX": self.prefix,
            **options,
        }
        arguments = ["-P", pool, "-c", str(concurrency), "-Q", queues, *more]
        worker = Worker(module, self._folder, name=name, arguments=arguments, env=env)
        worker.start(wait_ready=ready)
        self._stack.push(worker)
        return worker

    def worker_with_four(self, pool: str, **options: str) -> tuple[Worker, str, list[str]]:
        """A worker with one slot, the run that holds it until `release`, and three more runs in the worker's hands."""
        first = self.send("hold")
        rest = [self.send("record", str(number)) for number in range(3)]
        worker = self.worker(pool, 1, PREFETCH="4", **options)
        self.wait_started()
        wait_for(lambda: self.control.counts("celery").active == 4, 30, "the worker holds all")
        return worker, first, rest

    def send(self, task: str, *args: Any, queue: str = "celery", **options: Any) -> str:
        """Send one task; returns its run id."""
        options.setdefault("ignore_result", True)
        return str(self.app.send_task(task, args, queue=queue, **options).id)

    def release(self) -> None:
        """Let all `hold` tasks end."""
        self.records.set("release", "1")

    def wait_started(self, count: int = 1, limit_seconds: float = 60) -> list[str]:
        """Wait until so many executions have started; returns their ids in order."""
        wait_for(lambda: len(self.started()) >= count, limit_seconds, f"{count} starts")
        return self.started()

    def wait_listening(self, count: int = 1, queue: str = "celery") -> None:
        """Wait until so many workers take from the queue."""
        wait_for(lambda: self.control.counts(queue).consumers >= count, 60, f"{count} workers listen")

    def lines(self) -> list[str]:
        """What tasks recorded, in order."""
        return [str(line) for line in self.records.lrange(RECORDS, 0, -1)]

    def started(self) -> list[str]:
        """The ids of all executions that started."""
        return started(self.records)

    def ended(self) -> set[str]:
        """The ids of all runs that came to an end."""
        return {line.split()[1] for line in self.lines() if line.startswith("end ")}

    def wait_ended(self, ids: Iterable[str], limit_seconds: float = 60) -> None:
        """Wait until these runs have recorded their end."""
        wanted = set(ids)
        wait_for(lambda: wanted <= self.ended(), limit_seconds, f"{len(wanted)} runs ended")

    def wait_empty(self, limit_seconds: float = 30) -> None:
        """Wait until the broker keeps no key but events and who listens."""
        wait_for(lambda: not self.keys(), limit_seconds, "no key is left", lambda: str(self.keys()[:5]))

    def dead_letters(self) -> list[str]:
        """The dead letters that were stored: run id, reason, error, body."""
        return [str(letter) for letter in self.records.lrange("letters", 0, -1)]

    def keys(self) -> list[str]:
        """The keys of messages and queues."""
        names = (str(name) for name in self.broker.scan_iter(f"{self.prefix}*", count=1000))
        kept = tuple(self.prefix + name for name in ("events", "consumers:", "_kombu.", "celery-task-meta-"))
        return [name for name in names if not name.startswith(kept)]

    def events(self, run_id: str | None = None) -> list[dict[str, str]]:
        """The event stream, of one run if given."""
        entries: Any = self.broker.xrange(f"{self.prefix}events")
        return [fields for _, fields in entries if run_id in {None, fields["id"]}]

    def states(self, run_id: str) -> list[str]:
        """The names of a run's events, in order."""
        return [event["e"] for event in self.events(run_id)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        kombu.pools.reset()  # they are kombu's, shared by all apps of one URL
        self.app.close()
        for client in (self.broker, self.records):
            client.close()
