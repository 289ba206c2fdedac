"""Fixtures for webhooks: a client that may reach loopback, a well-behaved receiver, and rows of webhooks."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from tests.databases import Database
from tests.webhooks.posting import LOCAL
from tests.webhooks.receivers import Receiver
from tests.webhooks.webhook_rows import WebhookRows

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
def webhook_rows(database: Database) -> WebhookRows:
    """Webhook rows on a database of each kind in turn."""
    return WebhookRows(database)


@pytest.fixture
def sqlite_webhook_rows(sqlite_database: Database) -> WebhookRows:
    """Webhook rows on SQLite, for many cases of what no database decides."""
    return WebhookRows(sqlite_database)
