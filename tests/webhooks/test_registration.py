"""Endpoints are registered with options that mean something, or not at all."""

from datetime import timedelta
from typing import Any

import pytest

from taskyard.webhooks.delivery.endpoints import EndpointError, EndpointOptions, register
from taskyard.webhooks.event_types import EventTypeError
from taskyard.webhooks.http.ssrf_policy import UrlRefusedError
from taskyard.webhooks.models import Endpoint, Secret, Subscription
from taskyard.webhooks.signing.schemes import SecretFormatError
from tests.webhooks.webhook_rows import NOWHERE, WebhookRows

OPTIONS: list[dict[str, Any]] = [
    {"max_concurrency": 0},
    {"max_concurrency": 1001},
    {"rate_per_second": 0.0},
    {"max_concurrency": 2.5},
    {"max_concurrency": True},
    {"rate_per_second": float("nan")},
    {"rate_per_second": True},
    {"rate_per_second": 1e-300},
    {"extra_headers": {"X-A": "1" * 5000}},
    {"retry_delays": ()},
    {"retry_delays": (timedelta(seconds=-1),)},
    {"retry_delays": (timedelta(days=31),)},
    {"sends_standard": False, "sends_predictify": False},
    {"extra_headers": {"Host": "internal"}},
    {"extra_headers": {"webhook-id": "mine"}},
    {"extra_headers": {"user-agent": "mine"}},
    {"extra_headers": {"X-A": "1\r\nX-B: 2"}},
    {"extra_headers": {"X A": "1"}},
    {"description": "two\nlines"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: str(options)[:24] + str(len(str(options))))
def test_an_option_without_meaning_is_refused_and_nothing_is_written(
    sqlite_webhook_rows: WebhookRows, options: dict[str, Any]
) -> None:
    with pytest.raises(EndpointError):
        sqlite_webhook_rows.endpoint(**options)

    assert nothing_is_registered(sqlite_webhook_rows)


@pytest.mark.parametrize(
    ("url", "patterns", "options", "error"),
    [
        ("ftp://example.com/", ["*"], {}, UrlRefusedError),
        ("http://user:pass@127.0.0.1:8080/", ["*"], {}, UrlRefusedError),
        ("not a url", ["*"], {}, UrlRefusedError),
        (NOWHERE, [], {}, EndpointError),
        (NOWHERE, ["market.nothing"], {}, EventTypeError),
        (NOWHERE, ["**"], {}, EventTypeError),
        (NOWHERE, ["*"], {"secret": "whsec_c2hvcnQ="}, SecretFormatError),
        (NOWHERE, ["*"], {"secret": "hunter2"}, SecretFormatError),
    ],
)
def test_a_bad_registration_is_refused_with_the_documented_error_and_nothing_is_written(
    sqlite_webhook_rows: WebhookRows, url: str, patterns: list[str], options: dict[str, Any], error: type[Exception]
) -> None:
    webhook_rows = sqlite_webhook_rows.tuned(WEBHOOK_EVENT_TYPES="market.resolved")
    with pytest.raises(error) as caught:
        webhook_rows.endpoint(patterns, url, **options)

    assert "hunter2" not in str(caught.value)
    assert nothing_is_registered(webhook_rows)


def test_without_a_master_key_no_endpoint_is_registered(sqlite_webhook_rows: WebhookRows) -> None:
    settings = sqlite_webhook_rows.settings.model_copy(update={"webhook_secret_keys": None})
    with (
        sqlite_webhook_rows.database.session() as session,
        session.begin(),
        pytest.raises(EndpointError, match="new-key"),
    ):
        register(session, settings, NOWHERE, ["*"], EndpointOptions())

    assert nothing_is_registered(sqlite_webhook_rows)


def nothing_is_registered(webhook_rows: WebhookRows) -> bool:
    return webhook_rows.count(Endpoint) == webhook_rows.count(Subscription) == webhook_rows.count(Secret) == 0
