"""Fixtures for webhooks: a client that may reach loopback, and a well-behaved receiver."""

from collections.abc import Iterator

import pytest

from tasks.webhooks.clients import AiohttpWebhookClient
from tests.webhooks.posting import LOCAL
from tests.webhooks.receivers import Receiver


@pytest.fixture
def client() -> Iterator[AiohttpWebhookClient]:
    client = AiohttpWebhookClient(LOCAL)
    yield client
    client.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
