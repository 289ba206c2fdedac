"""Servers that tests share: one per kind and test process, emptied before each test."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest

import tasks.app  # noqa: F401 - a process of tests has this app, whichever of them run in it
from tests.docker_engine import require_engine
from tests.nodes.nodes import IN_CONTAINERS, Broker, start_broker
from tests.nodes.processes import ProcessClient
from tests.servers import Kind, Server, make_server

KINDS: tuple[Kind, ...] = ("valkey9", "redis7")


@pytest.fixture(scope="session")
def server_pool() -> Iterator[dict[Kind, Server]]:
    """The running servers of this test process; stopped at its end."""
    servers: dict[Kind, Server] = {}
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture
def valkey(server_pool: dict[Kind, Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An empty Valkey 9."""
    return _ready("valkey9", server_pool, tmp_path_factory)


@pytest.fixture(params=KINDS)
def broker_server(request: Any, server_pool: dict[Kind, Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An empty server of each kind in turn: for promises that both must keep."""
    return _ready(request.param, server_pool, tmp_path_factory)


@pytest.fixture(params=["valkey9", pytest.param("redis7", marks=pytest.mark.chaos)])
def costly_server(request: Any, server_pool: dict[Kind, Server], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """An empty Valkey 9, in `make chaos` Redis 7: for promises of both whose tests take more than three seconds."""
    return _ready(request.param, server_pool, tmp_path_factory)


@pytest.fixture(scope="session")
def docker_client() -> Any:
    """What pytest-celery's nodes are run with: Docker with CELERY_NODES=docker, else processes of this machine."""
    if not IN_CONTAINERS:
        return ProcessClient()
    require_engine()
    return docker.from_env()


@pytest.fixture
def celery_broker(docker_client: Any) -> Iterator[Broker]:
    """A Valkey of the test's own, as a node of pytest-celery."""
    broker = start_broker(docker_client)
    yield broker
    broker.teardown()


def _ready(kind: Kind, pool: dict[Kind, Server], folders: pytest.TempPathFactory) -> Server:
    if kind not in pool:
        pool[kind] = make_server(kind, folders.mktemp(kind), appendfsync="always")
    server = pool[kind].start()  # a test may have killed it
    server.flush()
    return server
