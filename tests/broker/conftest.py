"""The test bed on each kind of server."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests.broker.bed import Bed
from tests.broker.driver import Driver
from tests.servers import Server


@pytest.fixture
def bed(broker_server: Server, tmp_path: Path) -> Iterator[Bed]:
    """A bed on Redis 7 and on Valkey 9, with leases of one second."""
    with Bed(broker_server, tmp_path, worker_queue_stalled_interval=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def valkey_bed(valkey: Server, tmp_path: Path) -> Iterator[Bed]:
    """A bed on Valkey 9 only: for what costs much time and does not depend on the server."""
    with Bed(valkey, tmp_path, worker_queue_stalled_interval=timedelta(seconds=1)) as made:
        yield made


@pytest.fixture
def driver(broker_server: Server) -> Iterator[Driver]:
    """A consumer without Celery, on each kind of server."""
    with redis.Redis(port=broker_server.port) as client:
        yield Driver(client)
