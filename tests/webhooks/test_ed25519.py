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
from tests.webhooks.stage import NOWHERE, Stage


def send(stage: Stage, client: AiohttpWebhookClient) -> DeliveryReport:
    """Emit an event and make its first attempt."""
    (delivery,) = stage.emit(data={"n": 1})
    tools = DeliveryDependencies(stage.store, client, lambda _due: None, stage.settings, "worker-1")
    return deliver(DeliverWebhook(delivery_id=delivery), tools)


def added(stage: Stage, url: str, **options: Any) -> tuple[Endpoint, str]:
    with stage.database.session() as session, session.begin():
        return register(session, stage.settings, url, ["*"], EndpointOptions(**options))


def test_a_receiver_verifies_with_the_public_key_that_registration_returned(
    stage: Stage, client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    endpoint, key = added(stage, receiver.url, uses_ed25519=True)

    assert send(stage, client).state == "delivered"

    (request,) = receiver.requests
    assert key.startswith("whpk_")
    assert request.headers["webhook-signature"].startswith("v1a,")
    assert verify(request.headers, request.body, key).id == request.webhook_id
    with pytest.raises(WebhookVerificationError):
        verify(request.headers, request.body + b" ", key)
    assert "X-Predictify-Signature" not in request.headers, "an Ed25519 key cannot make it"
    with stage.database.session() as session:
        assert public_keys(session, stage.settings, endpoint.id) == [key]


def test_rotation_makes_another_ed25519_key_and_both_sign_meanwhile(
    stage: Stage, client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    endpoint, old = added(stage, receiver.url, secret=new_private_key().reveal())
    with stage.database.session() as session, session.begin():
        new = rotate_secret(session, stage.settings, endpoint.id, timedelta(hours=1))

    send(stage, client)

    (request,) = receiver.requests
    assert new.startswith("whpk_")
    assert new != old
    for key in (old, new):
        assert verify(request.headers, request.body, key).id == request.webhook_id
    with stage.database.session() as session:
        assert public_keys(session, stage.settings, endpoint.id) == [new, old]


def test_a_shared_secret_rotates_to_a_shared_secret_and_has_no_public_key(quick_stage: Stage) -> None:
    endpoint, _ = added(quick_stage, NOWHERE)
    with quick_stage.database.session() as session, session.begin():
        assert rotate_secret(session, quick_stage.settings, endpoint.id, timedelta(0)).startswith("whsec_")
        assert public_keys(session, quick_stage.settings, endpoint.id) == []


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
    quick_stage: Stage, options: dict[str, Any]
) -> None:
    with pytest.raises(EndpointError):
        quick_stage.endpoint(**options)

    assert quick_stage.count(Endpoint) == 0


@pytest.mark.parametrize("headers", [{"sends_standard": False}, {"sends_standard": False, "sends_predictify": False}])
def test_a_request_that_nothing_signs_is_not_sent(
    quick_stage: Stage, client: AiohttpWebhookClient, receiver: Receiver, headers: dict[str, bool]
) -> None:
    """However the row came to be so; the attempt is in the books with its reason."""
    endpoint, _ = added(quick_stage, receiver.url, uses_ed25519=True)
    quick_stage.change(Endpoint, endpoint.id, **headers)

    with pytest.raises(Exception, match="unsigned"):
        send(quick_stage, client)

    assert receiver.requests == ()
    (delivery,) = quick_stage.deliveries()
    assert [attempt.error for attempt in quick_stage.attempts(delivery.id)] == ["unsigned"]
    assert delivery.state == "retrying"
