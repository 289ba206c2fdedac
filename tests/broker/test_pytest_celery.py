"""
pytest-celery's fixtures on our transport.

An app of ours that tests with pytest-celery needs one line: its setup class takes `transport_settings` in
`update_app_config`, as below.
"""

from collections.abc import Iterator
from typing import Any

import kombu.pools
import pytest
from celery import Celery, chord, group
from pytest_celery import (
    RESULT_TIMEOUT,
    CeleryTestBackend,
    CeleryTestNode,
    CeleryTestSetup,
    CeleryTestWorker,
)
from pytest_celery.vendors.worker import tasks as theirs

from taskyard.broker.transport.options import transport_settings
from taskyard.broker.transport.transport import Transport
from tests.broker.app import Settings
from tests.nodes.nodes import Broker, start_worker

pytestmark = pytest.mark.timeout(300)  # many processes start
QUEUE = "celery"


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
def celery_backend(celery_broker: Broker) -> CeleryTestBackend:
    """The Valkey that is the broker."""
    return CeleryTestBackend(celery_broker.container)


@pytest.fixture(params=["prefork", "threads"])
def celery_worker(
    request: pytest.FixtureRequest, docker_client: Any, celery_broker: Broker
) -> Iterator[CeleryTestWorker]:
    """A worker with pytest-celery's own tasks."""
    arguments = ["-A", "tests.broker.app", "worker", "-n", "worker@test", "-l", "INFO"]
    arguments += ["-P", request.param, "-c", "2", "-Q", QUEUE, "--include", theirs.__name__]
    env = {"TEST_BROKER_URL": celery_broker.url, "LEASE_MS": "1000", "IGNORE_RESULTS": "0"}
    worker = start_worker(docker_client, arguments, env)
    yield worker
    worker.teardown()


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
