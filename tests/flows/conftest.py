"""A stage for flows on each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.app_broker import use_broker
from tests.databases import Database, database, database_servers, empty_database
from tests.flows.flow_stage import FlowStage, environment
from tests.servers import Server

__all__ = ["database", "database_servers", "empty_database"]


@pytest.fixture
def stage(database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowStage]:
    """A stage without workers; this process has its environment."""
    env = environment(valkey, database, tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    use_broker(valkey.url)
    current_engine.cache_clear()
    made = FlowStage(valkey, database, tmp_path, env)
    yield made
    made.stop()
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
