"""A platform for each test of this folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Database, DatabaseServers, lent
from tests.nodes.nodes import Broker
from tests.system.webhook_platform import WebhookPlatform
from tests.webhooks.receivers import Receiver

type PlatformMaker = Callable[..., WebhookPlatform]


@pytest.fixture
def make_platform(celery_broker: Broker, docker_client: Any, tmp_path: Path) -> Iterator[PlatformMaker]:
    """Makes a platform on a database, with settings of the test's choice."""
    with ExitStack() as stack:
        yield lambda database, **environ: stack.enter_context(
            WebhookPlatform(database, celery_broker, docker_client, tmp_path, **environ)
        )


@pytest.fixture
def platform(make_platform: PlatformMaker, database: Database) -> WebhookPlatform:
    """A platform with short waits on a database of each kind in turn."""
    return make_platform(database)


@pytest.fixture
def make_sqlite_platform(make_platform: PlatformMaker, sqlite_database: Database) -> PlatformMaker:
    """Makes a platform on SQLite, with settings of the test's choice."""
    return lambda **environ: make_platform(sqlite_database, **environ)


@pytest.fixture
def sqlite_platform(make_sqlite_platform: PlatformMaker) -> WebhookPlatform:
    """A platform with short waits on SQLite, for promises that no database decides."""
    return make_sqlite_platform()


@pytest.fixture
def make_postgres_platform(make_platform: PlatformMaker, database_servers: DatabaseServers) -> Iterator[PlatformMaker]:
    """Makes a platform on PostgreSQL, with settings of the test's choice."""
    with contextmanager(lent)("postgresql", database_servers, migrated=True) as made:
        yield lambda **environ: make_platform(made, **environ)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers 200 until told otherwise."""
    with Receiver() as receiver:
        yield receiver
