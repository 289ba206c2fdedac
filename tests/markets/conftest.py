"""Databases for the tests of this folder, rows of markets in them, and the platform on a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.app_broker import use_broker
from tests.databases import Database, database, database_servers, empty_database
from tests.markets.market_platform import MarketPlatform, environment
from tests.markets.market_rows import MarketRows
from tests.servers import Server

__all__ = ["database", "database_servers", "empty_database"]


@pytest.fixture
def market_rows(database: Database) -> MarketRows:
    """No rows yet, in each kind of database in turn."""
    return MarketRows(database)


@pytest.fixture
def platform(
    database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MarketPlatform]:
    """A platform without workers; this process has its environment."""
    env = environment(valkey, database, tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    use_broker(valkey.url)
    current_engine.cache_clear()
    made = MarketPlatform(valkey, database, tmp_path, env)
    yield made
    made.stop()
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
