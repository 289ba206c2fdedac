"""Fixtures for webhooks: a client that may reach loopback, and a well-behaved receiver."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tasks.webhooks.clients import AiohttpWebhookClient
from tests.webhooks.posting import LOCAL
from tests.webhooks.receivers import Receiver

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
