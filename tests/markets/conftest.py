"""Databases for the tests of this folder, a small world in them, and the platform on a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.databases import Database, database, empty_database, servers
from tests.markets.platform import Platform, environment
from tests.markets.world import World
from tests.pointing import point_app_at
from tests.servers import Server

__all__ = ["database", "empty_database", "servers"]


@pytest.fixture
def world(database: Database) -> World:
    """An empty world in each kind of database in turn."""
    return World(database)


@pytest.fixture
def platform(database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform without workers; this process has its environment."""
    env = environment(valkey, database, tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    point_app_at(valkey.url)
    current_engine.cache_clear()
    made = Platform(valkey, database, tmp_path, env)
    yield made
    made.stop()
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
