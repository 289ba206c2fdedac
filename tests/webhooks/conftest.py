"""A database and a stage for the webhook tests that need them."""

from collections.abc import Iterator

import pytest

from config.database import open_engine
from tests.databases import Database, Servers, database, servers
from tests.webhooks.stage import Stage

__all__ = ["database", "quick_stage", "servers", "stage"]


@pytest.fixture
def stage(database: Database) -> Stage:
    """A stage on a database of each kind in turn."""
    return Stage(database)


@pytest.fixture
def quick_stage(servers: Servers) -> Iterator[Stage]:
    """A stage on SQLite, for many cases of what no database decides."""
    url = servers.make("sqlite")
    engine = open_engine(url)
    yield Stage(Database("sqlite", url, engine))
    engine.dispose()
    servers.drop(url)
