"""A site with an empty broker, an empty list of notes and a migrated SQLite database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.database.engine import open_engine
from tests.databases import Database, Servers, servers
from tests.pointing import point_app_at
from tests.pools.site import Site
from tests.servers import Server

__all__ = ["servers"]


@pytest.fixture(scope="session")
def _notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("notes"), appendfsync="no") as server:
        yield server


@pytest.fixture
def site(valkey: Server, _notes: Server, servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A site without a worker."""
    _notes.flush()
    url = servers.make("sqlite")
    engine = open_engine(url)
    point_app_at(valkey.url)
    with Site(valkey, _notes, Database("sqlite", url, engine), tmp_path) as made:
        yield made
    engine.dispose()
    servers.drop(url)
