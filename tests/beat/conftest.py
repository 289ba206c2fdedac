"""Servers, databases and beat processes for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app_broker import using_servers
from tests.beat.beat_platform import BeatPlatform
from tests.beat.simulation import BeatSimulation, TurnedClock
from tests.databases import Database
from tests.servers import Server


@pytest.fixture
def platform(valkey: Server, database: Database, tmp_path: Path) -> Iterator[BeatPlatform]:
    """A broker, a database of each kind in turn, and the means to start processes on them; ended with the test."""
    with BeatPlatform(valkey, database, tmp_path) as made:
        yield made


@pytest.fixture
def simulation(
    valkey: Server, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BeatSimulation]:
    """A platform for engines in this process, with a clock that the test turns."""
    servers = {"DATABASE_URL": database.url, "REDIS_URL": valkey.url, "MARKS_URL": valkey.url}
    with using_servers(servers, monkeypatch), BeatSimulation(valkey, database, tmp_path) as made:
        made.clock = TurnedClock()
        yield made
