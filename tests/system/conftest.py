"""A platform for each test of this folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config.database import open_engine
from tests.databases import Database, Kind, Servers, database, servers
from tests.servers import Server
from tests.system.site import Site
from tests.webhooks.receivers import Receiver

__all__ = ["database", "file_site", "file_sites", "receiver", "server_sites", "servers", "site"]

type Sites = Callable[..., Site]


@pytest.fixture
def site(database: Database, valkey: Server, tmp_path: Path) -> Iterator[Site]:
    """A platform with short waits on a database of each kind in turn."""
    with Site(database, valkey, tmp_path) as site:
        yield site


@pytest.fixture
def file_sites(servers: Servers, valkey: Server, tmp_path: Path) -> Iterator[Sites]:
    """Makes a platform on SQLite, with settings of the test's choice."""
    yield from _sites("sqlite", servers, valkey, tmp_path)


@pytest.fixture
def file_site(file_sites: Sites) -> Site:
    """A platform with short waits on SQLite, for promises that no database decides."""
    return file_sites()


@pytest.fixture
def server_sites(servers: Servers, valkey: Server, tmp_path: Path) -> Iterator[Sites]:
    """Makes a platform on PostgreSQL, with settings of the test's choice."""
    yield from _sites("postgresql", servers, valkey, tmp_path)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200 until told otherwise."""
    with Receiver() as receiver:
        yield receiver


def _sites(kind: Kind, servers: Servers, valkey: Server, folder: Path) -> Iterator[Sites]:
    url = servers.make(kind)
    engine = open_engine(url)
    with ExitStack() as stack:
        yield lambda **environ: stack.enter_context(Site(Database(kind, url, engine), valkey, folder, **environ))
    engine.dispose()
    servers.drop(url)
