"""
pytest-celery's fixtures on our transport, with processes in place of its containers.

An app of ours that tests with pytest-celery needs one line: its setup class takes `transport_settings` in
`update_app_config`, as below.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
from celery import Celery, chord, group
from pytest_celery import (
    RESULT_TIMEOUT,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestNode,
    CeleryTestSetup,
    CeleryTestWorker,
)
from pytest_celery.vendors.worker import tasks as theirs

from broker.options import transport_settings
from broker.transport import Transport
from tests.broker.app import Settings
from tests.servers import Server
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)  # many processes start
QUEUE = "celery"


class Box:
    """What pytest-celery asks of a container, kept by a process."""

    id = "process"
    name = "process"

    def __init__(self, process: Server | Worker, config: dict[str, Any]) -> None:
        self.process = process
        self.celeryconfig = config

    @property
    def status(self) -> str:
        """As Docker names it."""
        return "running" if self.process.is_running else "exited"

    def ready(self) -> bool:
        """Whether it is up."""
        return self.process.is_running

    def logs(self) -> str:
        """What it has written."""
        return self.process.log.read_text(errors="replace")

    def kill(self, signal: str) -> None:
        """Send the signal and wait for the end."""
        _end(self.process, signal)

    def restart(self, timeout: float) -> None:  # noqa: ARG002 - pytest-celery's signature
        """Start it again."""
        self.process.start()

    def reload(self) -> None:
        """Nothing is cached."""

    def teardown(self) -> None:
        """End it."""
        self.process.stop()

    def worker_queue(self) -> str:
        """What the worker takes from."""
        return QUEUE

    def worker_name(self) -> str:
        """The worker's node name."""
        return "worker"


class Setup(CeleryTestSetup):  # type: ignore[misc]  # pytest-celery ships no types
    """The line that an app of ours adds."""

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        """Put the app on our transport."""
        app.conf.update(transport_settings(Settings(str(app.conf.broker_url))))


def _end(process: Server | Worker, name: str) -> None:
    if name == "SIGKILL":
        process.kill()
    else:
        os.kill(process.pid, signal.Signals[name])


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    """Our setup."""
    return Setup


@pytest.fixture
def celery_broker(valkey: Server) -> CeleryTestBroker:
    """A Valkey process."""
    return CeleryTestBroker(_box(valkey))


@pytest.fixture
def celery_backend(valkey: Server) -> CeleryTestBackend:
    """The same process."""
    return CeleryTestBackend(_box(valkey))


@pytest.fixture(params=["prefork", "threads"])
def celery_worker(request: pytest.FixtureRequest, valkey: Server, tmp_path: Path) -> Iterator[CeleryTestWorker]:
    """A worker process with pytest-celery's own tasks."""
    arguments = ["-P", request.param, "-c", "2", "-Q", QUEUE, "--include", theirs.__name__]
    env = {"TEST_BROKER_URL": valkey.url, "LEASE_MS": "1000", "IGNORE_RESULTS": "0"}
    box: Any = Box(Worker("tests.broker.app", tmp_path, arguments=arguments, env=env).start(), {})
    node = CeleryTestWorker(box, None)
    yield node
    node.teardown()


@pytest.fixture
def celery_setup_app(celery_setup_app: Celery) -> Iterator[Celery]:
    """pytest-celery's app, closed at the end."""
    yield celery_setup_app
    celery_setup_app.close()
    kombu.pools.reset()


def _box(server: Server) -> Any:
    return Box(server, {"url": server.url, "host_url": server.url})


def kill_and_restart(node: CeleryTestNode) -> None:
    """As tests with containers do."""
    node.kill()
    node.restart()


def test_tasks_chords_and_replaced_tasks_work(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True, control=True, docker=True)
    assert isinstance(celery_setup.app.connection().transport, Transport)
    assert theirs.add.s(6, 7).apply_async(queue=QUEUE).get(timeout=RESULT_TIMEOUT) == 13
    total = chord(group(theirs.add.s(i, 2).set(queue=QUEUE) for i in range(4)), theirs.xsum.s().set(queue=QUEUE))
    assert total.apply_async().get(timeout=RESULT_TIMEOUT) == 14
    replaced = theirs.add_replaced.s(1, 2, queue=QUEUE).apply_async(queue=QUEUE)
    assert replaced.get(timeout=RESULT_TIMEOUT) == 3
    celery_setup.worker.assert_log_exists("succeeded in")


def test_work_goes_on_after_a_kill_of_the_broker_and_of_the_worker(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True)
    kill_and_restart(celery_setup.broker)
    assert theirs.add.s(1, 1).apply_async(queue=QUEUE).get(timeout=RESULT_TIMEOUT) == 2
    celery_setup.worker.kill()
    waiting = theirs.add.s(2, 2).apply_async(queue=QUEUE)
    celery_setup.worker.restart()
    assert waiting.get(timeout=RESULT_TIMEOUT) == 4
