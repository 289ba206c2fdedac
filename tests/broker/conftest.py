"""The test harness on each kind of server."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests.broker.harness import BrokerHarness
from tests.broker.script_driver import ScriptDriver
from tests.servers import Server


@pytest.fixture(scope="session")
def _recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("recorder"), appendfsync="no") as server:
        yield server


@pytest.fixture
def recorder(_recorder: Server) -> Server:
    """An empty server that no test hurts."""
    _recorder.flush()
    return _recorder


@pytest.fixture
def harness(broker_server: Server, recorder: Server, tmp_path: Path) -> Iterator[BrokerHarness]:
    """A harness on Redis 7 and on Valkey 9, with leases of one second."""
    with BrokerHarness(broker_server, recorder, tmp_path, worker_queue_stalled_interval=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def costly_harness(costly_server: Server, recorder: Server, tmp_path: Path) -> Iterator[BrokerHarness]:
    """A harness on Valkey 9, in `make chaos` on Redis 7: for what takes more than three seconds."""
    with BrokerHarness(costly_server, recorder, tmp_path, worker_queue_stalled_interval=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def valkey_harness(valkey: Server, recorder: Server, tmp_path: Path) -> Iterator[BrokerHarness]:
    """A harness on Valkey 9 only: for short versions of what `make chaos` does on both."""
    with BrokerHarness(valkey, recorder, tmp_path, worker_queue_stalled_interval=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def driver(broker_server: Server) -> Iterator[ScriptDriver]:
    """A consumer without Celery, on each kind of server."""
    with redis.Redis(port=broker_server.port) as client:
        yield ScriptDriver(client)
