"""A platform for each test of this folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Database, Kind, Servers, database, lent, servers
from tests.nodes.nodes import Broker
from tests.system.site import Site
from tests.webhooks.receivers import Receiver

__all__ = ["database", "file_site", "file_sites", "receiver", "server_sites", "servers", "site"]

type Sites = Callable[..., Site]


@pytest.fixture
def make_site(celery_broker: Broker, docker_client: Any, tmp_path: Path) -> Iterator[Sites]:
    """Makes a platform on a database, with settings of the test's choice."""
    with ExitStack() as stack:
        yield lambda database, **environ: stack.enter_context(
            Site(database, celery_broker, docker_client, tmp_path, **environ)
        )


@pytest.fixture
def site(make_site: Sites, database: Database) -> Site:
    """A platform with short waits on a database of each kind in turn."""
    return make_site(database)


@pytest.fixture
def file_sites(make_site: Sites, servers: Servers) -> Iterator[Sites]:
    """Makes a platform on SQLite, with settings of the test's choice."""
    yield from _sites("sqlite", servers, make_site)


@pytest.fixture
def file_site(file_sites: Sites) -> Site:
    """A platform with short waits on SQLite, for promises that no database decides."""
    return file_sites()


@pytest.fixture
def server_sites(make_site: Sites, servers: Servers) -> Iterator[Sites]:
    """Makes a platform on PostgreSQL, with settings of the test's choice."""
    yield from _sites("postgresql", servers, make_site)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200 until told otherwise."""
    with Receiver() as receiver:
        yield receiver


def _sites(kind: Kind, servers: Servers, make_site: Sites) -> Iterator[Sites]:
    with contextmanager(lent)(kind, servers, migrated=True) as made:
        yield lambda **environ: make_site(made, **environ)
