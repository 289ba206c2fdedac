"""Databases for the tests of this folder, and the command line on a test's own servers."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.cli.platform import Celery
from tests.commands import command_of
from tests.databases import Database, Servers, database, empty_database, servers
from tests.pointing import point_app_at
from tests.servers import Server

__all__ = ["database", "empty_database", "servers"]

type Command = Callable[..., Result]


@pytest.fixture
def celery(servers: Servers, valkey: Server) -> Iterator[Celery]:
    """`celery -A ...` with a migrated SQLite database and an empty broker."""
    url = servers.make("sqlite")
    yield Celery({"DATABASE_URL": url, "REDIS_URL": valkey.url})
    servers.drop(url)


@pytest.fixture
def command(database: Database, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Our groups in this process, which is quicker: `command("jobs", "ls")`; on each kind of database in turn."""
    yield from in_this_process(database.url, valkey.url, monkeypatch)


@pytest.fixture
def empty_command(empty_database: Database, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """As `command`, on a database without tables."""
    yield from in_this_process(empty_database.url, valkey.url, monkeypatch)


def in_this_process(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    current_settings.cache_clear()
    current_engine.cache_clear()
    point_app_at(redis_url)

    def run(group: str, *arguments: str) -> Result:
        return CliRunner().invoke(command_of(group), arguments)

    yield run
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
