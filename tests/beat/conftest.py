"""Servers, databases and beat processes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.beat.desk import Desk, TurnedClock
from tests.beat.stage import Stage
from tests.databases import Database, database, servers
from tests.pointing import point_app_at
from tests.servers import Server

__all__ = ["database", "servers"]


@pytest.fixture
def stage(valkey: Server, database: Database, tmp_path: Path) -> Iterator[Stage]:
    """A broker, a database of each kind in turn, and the means to start processes on them; ended with the test."""
    with Stage(valkey, database, tmp_path) as made:
        yield made


@pytest.fixture
def desk(valkey: Server, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A stage for engines in this process, with a clock that the test turns."""
    for name, value in (("DATABASE_URL", database.url), ("REDIS_URL", valkey.url), ("MARKS_URL", valkey.url)):
        monkeypatch.setenv(name, value)
    current_settings.cache_clear()
    current_engine.cache_clear()
    point_app_at(valkey.url)
    with Desk(valkey, database, tmp_path) as made:
        made.clock = TurnedClock()
        yield made
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
