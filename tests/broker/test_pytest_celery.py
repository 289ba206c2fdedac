"""
pytest-celery's fixtures on our transport: processes in place of its containers, or containers with CELERY_NODES=docker.

An app of ours that tests with pytest-celery needs one line: its setup class takes `transport_settings` in
`update_app_config`, as below.
"""

import socket
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
from tests.broker.boxes import IN_CONTAINERS, QUEUE, ProcessBox, broker_box, worker_box
from tests.engine import require_engine
from tests.servers import Server
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)  # many processes start


class Setup(CeleryTestSetup):  # type: ignore[misc]  # pytest-celery ships no types
    """The line that an app of ours adds."""

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        """Put the app on our transport."""
        app.conf.update(transport_settings(Settings(str(app.conf.broker_url))))


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    """Our setup."""
    return Setup


@pytest.fixture
def broker_node(valkey: Server) -> Iterator[Any]:
    """A Valkey: a process, or a container on a port of its own."""
    if not IN_CONTAINERS:
        yield ProcessBox(valkey, {"url": valkey.url, "host_url": valkey.url})
        return
    require_engine()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    box = broker_box(f"redis://127.0.0.1:{port}/0", port)
    yield box
    box.teardown()


@pytest.fixture
def celery_broker(broker_node: Any) -> CeleryTestBroker:
    """The Valkey."""
    return CeleryTestBroker(broker_node)


@pytest.fixture
def celery_backend(broker_node: Any) -> CeleryTestBackend:
    """The same."""
    return CeleryTestBackend(broker_node)


@pytest.fixture(params=["prefork", "threads"])
def celery_worker(request: pytest.FixtureRequest, broker_node: Any, tmp_path: Path) -> Iterator[CeleryTestWorker]:
    """A worker with pytest-celery's own tasks."""
    arguments = ["-P", request.param, "-c", "2", "-Q", QUEUE, "--include", theirs.__name__]
    env = {"TEST_BROKER_URL": broker_node.celeryconfig["url"], "LEASE_MS": "1000", "IGNORE_RESULTS": "0"}
    box: Any
    if IN_CONTAINERS:
        box = worker_box(arguments, env)
    else:
        box = ProcessBox(Worker("tests.broker.app", tmp_path, arguments=arguments, env=env).start(), {})
    node = CeleryTestWorker(box, None)
    yield node
    node.teardown()


@pytest.fixture
def celery_setup_app(celery_setup_app: Celery) -> Iterator[Celery]:
    """pytest-celery's app, closed at the end."""
    yield celery_setup_app
    celery_setup_app.close()
    kombu.pools.reset()


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
