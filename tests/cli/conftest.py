"""Databases for the tests of this folder, and the command line on a test's own servers."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from taskyard.database.engine import current_engine
from taskyard.settings.loading import current_settings
from tests.app_broker import use_broker
from tests.cli.celery_command import CeleryCommand
from tests.commands import command_of
from tests.databases import Database, DatabaseServers, database, database_servers, empty_database
from tests.servers import Server

__all__ = ["database", "database_servers", "empty_database"]

type Command = Callable[..., Result]


@pytest.fixture
def celery(database_servers: DatabaseServers, valkey: Server) -> Iterator[CeleryCommand]:
    """`celery -A ...` with a migrated SQLite database and an empty broker."""
    url = database_servers.make("sqlite")
    yield CeleryCommand({"DATABASE_URL": url, "REDIS_URL": valkey.url})
    database_servers.drop(url)


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
    use_broker(redis_url)

    def run(group: str, *arguments: str) -> Result:
        return CliRunner().invoke(command_of(group), arguments)

    yield run
    current_engine().dispose()
    current_engine.cache_clear()
    current_settings.cache_clear()
