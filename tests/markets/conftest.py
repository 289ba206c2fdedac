"""Databases for the tests of this folder, rows of markets in them, and the platform on a broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_broker import using_servers
from tests.databases import Database
from tests.markets.market_platform import MarketPlatform, environment
from tests.markets.market_rows import MarketRows
from tests.servers import Server


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
    with using_servers(env, monkeypatch):
        made = MarketPlatform(valkey, database, tmp_path, env)
        yield made
        made.stop()
