"""A stage for flows on each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.databases import Database, database, empty_database, servers
from tests.flows.stage import Stage, environment
from tests.pointing import point_app_at
from tests.servers import Server

__all__ = ["database", "empty_database", "servers"]


@pytest.fixture
def stage(database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage without workers; this process has its environment."""
    env = environment(valkey, database, tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    point_app_at(valkey.url)
    current_engine.cache_clear()
    made = Stage(valkey, database, tmp_path, env)
    yield made
    made.stop()
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
