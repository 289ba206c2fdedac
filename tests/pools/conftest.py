"""A platform with an empty broker, an empty list of notes and a migrated SQLite database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_broker import use_broker
from tests.databases import Database
from tests.pools.pool_platform import PoolPlatform
from tests.servers import Server


@pytest.fixture(scope="session")
def _notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("notes"), appendfsync="no") as server:
        yield server


@pytest.fixture
def platform(valkey: Server, _notes: Server, sqlite_database: Database, tmp_path: Path) -> Iterator[PoolPlatform]:
    """A platform without a worker."""
    _notes.flush()
    use_broker(valkey.url)
    with PoolPlatform(valkey, _notes, sqlite_database, tmp_path) as made:
        yield made
