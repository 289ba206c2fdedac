"""Endpoints that sign with an Ed25519 key: made, shown, rotated within their kind, and never sent unsigned."""

from datetime import timedelta
from typing import Any

import pytest

from taskyard.webhooks.delivery.endpoints import EndpointError, EndpointOptions, register, rotate_secret
from taskyard.webhooks.handlers import DeliveryDependencies, DeliveryReport, deliver
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from taskyard.webhooks.models import Endpoint
from taskyard.webhooks.operators.queries import public_keys
from taskyard.webhooks.payloads import DeliverWebhook
from taskyard.webhooks.signing.schemes import new_private_key, new_secret
from taskyard.webhooks.verify import WebhookVerificationError, verify
from tests.webhooks.receivers import Receiver
from tests.webhooks.webhook_rows import NOWHERE, WebhookRows


def send(webhook_rows: WebhookRows, client: AiohttpWebhookClient) -> DeliveryReport:
    """Emit an event and make its first attempt."""
    (delivery,) = webhook_rows.emit(data={"n": 1})
    tools = DeliveryDependencies(webhook_rows.store, client, lambda _due: None, webhook_rows.settings, "worker-1")
    return deliver(DeliverWebhook(delivery_id=delivery), tools)


def added(webhook_rows: WebhookRows, url: str, **options: Any) -> tuple[Endpoint, str]:
    with webhook_rows.database.session() as session, session.begin():
        return register(session, webhook_rows.settings, url, ["*"], EndpointOptions(**options))


def test_a_receiver_verifies_with_the_public_key_that_registration_returned(
    webhook_rows: WebhookRows, client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    endpoint, key = added(webhook_rows, receiver.url, uses_ed25519=True)

    assert send(webhook_rows, client).state == "delivered"

    (request,) = receiver.requests
    assert key.startswith("whpk_")
    assert request.headers["webhook-signature"].startswith("v1a,")
    assert verify(request.headers, request.body, key).id == request.webhook_id
    with pytest.raises(WebhookVerificationError):
        verify(request.headers, request.body + b" ", key)
    assert "X-Predictify-Signature" not in request.headers, "an Ed25519 key cannot make it"
    with webhook_rows.database.session() as session:
        assert public_keys(session, webhook_rows.settings, endpoint.id) == [key]


def test_rotation_makes_another_ed25519_key_and_both_sign_meanwhile(
    webhook_rows: WebhookRows, client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    endpoint, old = added(webhook_rows, receiver.url, secret=new_private_key().reveal())
    with webhook_rows.database.session() as session, session.begin():
        new = rotate_secret(session, webhook_rows.settings, endpoint.id, timedelta(hours=1))

    send(webhook_rows, client)

    (request,) = receiver.requests
    assert new.startswith("whpk_")
    assert new != old
    for key in (old, new):
        assert verify(request.headers, request.body, key).id == request.webhook_id
    with webhook_rows.database.session() as session:
        assert public_keys(session, webhook_rows.settings, endpoint.id) == [new, old]


def test_a_shared_secret_rotates_to_a_shared_secret_and_has_no_public_key(sqlite_webhook_rows: WebhookRows) -> None:
    endpoint, _ = added(sqlite_webhook_rows, NOWHERE)
    with sqlite_webhook_rows.database.session() as session, session.begin():
        assert rotate_secret(session, sqlite_webhook_rows.settings, endpoint.id, timedelta(0)).startswith("whsec_")
        assert public_keys(session, sqlite_webhook_rows.settings, endpoint.id) == []


@pytest.mark.parametrize(
    "options",
    [
        {"uses_ed25519": True, "sends_standard": False},
        {"uses_ed25519": True, "sends_predictify": True},
        {"secret": new_private_key().reveal(), "sends_standard": False, "sends_predictify": True},
        {"secret": new_private_key().reveal(), "sends_standard": False},
        {"secret": new_secret().reveal(), "uses_ed25519": True},
    ],
    ids=["no standard headers", "predictify", "given, predictify only", "given, no headers", "given another kind"],
)
def test_options_under_which_requests_would_be_unsigned_are_refused(
    sqlite_webhook_rows: WebhookRows, options: dict[str, Any]
) -> None:
    with pytest.raises(EndpointError):
        sqlite_webhook_rows.endpoint(**options)

    assert sqlite_webhook_rows.count(Endpoint) == 0


@pytest.mark.parametrize("headers", [{"sends_standard": False}, {"sends_standard": False, "sends_predictify": False}])
def test_a_request_that_nothing_signs_is_not_sent(
    sqlite_webhook_rows: WebhookRows, client: AiohttpWebhookClient, receiver: Receiver, headers: dict[str, bool]
) -> None:
    """However the row came to be so; the attempt is in the books with its reason."""
    endpoint, _ = added(sqlite_webhook_rows, receiver.url, uses_ed25519=True)
    sqlite_webhook_rows.change(Endpoint, endpoint.id, **headers)

    with pytest.raises(Exception, match="unsigned"):
        send(sqlite_webhook_rows, client)

    assert receiver.requests == ()
    (delivery,) = sqlite_webhook_rows.deliveries()
    assert [attempt.error for attempt in sqlite_webhook_rows.attempts(delivery.id)] == ["unsigned"]
    assert delivery.state == "retrying"
