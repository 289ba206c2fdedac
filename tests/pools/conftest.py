"""A platform with an empty broker, an empty list of notes and a migrated SQLite database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import open_engine
from tests.app_broker import use_broker
from tests.databases import Database, DatabaseServers, database_servers
from tests.pools.pool_platform import PoolPlatform
from tests.servers import Server

__all__ = ["database_servers"]


@pytest.fixture(scope="session")
def _notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("notes"), appendfsync="no") as server:
        yield server


@pytest.fixture
def platform(
    valkey: Server, _notes: Server, database_servers: DatabaseServers, tmp_path: Path
) -> Iterator[PoolPlatform]:
    """A platform without a worker."""
    _notes.flush()
    url = database_servers.make("sqlite")
    engine = open_engine(url)
    use_broker(valkey.url)
    with PoolPlatform(valkey, _notes, Database("sqlite", url, engine), tmp_path) as made:
        yield made
    engine.dispose()
    database_servers.drop(url)
