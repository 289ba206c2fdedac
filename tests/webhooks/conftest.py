"""Fixtures for webhooks: a client that may reach loopback, a well-behaved receiver, and a stage of rows."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from taskyard.database.engine import open_engine
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from tests.databases import Database, Servers, database, servers
from tests.webhooks.posting import LOCAL
from tests.webhooks.receivers import Receiver
from tests.webhooks.stage import Stage

__all__ = ["client", "database", "quick_stage", "receiver", "servers", "stage"]

# Hypothesis would fail an example that took over 200 ms, as any does on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture
def client() -> Iterator[AiohttpWebhookClient]:
    client = AiohttpWebhookClient(LOCAL)
    yield client
    client.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


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
