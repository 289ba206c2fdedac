"""Databases for the tests of this folder, and the platform's app on a test's own servers."""

from collections.abc import Iterator

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.app_broker import use_broker
from tests.databases import Database, database, database_servers, empty_database
from tests.servers import Server

__all__ = ["app_database", "database", "database_servers", "empty_database"]


@pytest.fixture
def app_database(database: Database, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A migrated database and an empty broker that settings, engine and app of this process use."""
    monkeypatch.setenv("DATABASE_URL", database.url)
    monkeypatch.setenv("REDIS_URL", valkey.url)
    current_settings.cache_clear()
    current_engine.cache_clear()
    use_broker(valkey.url)
    yield database
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
