"""A receiver that uses our helper takes genuine, fresh webhooks and refuses all else with one error."""

import contextlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskyard.webhooks.signing.schemes import SecretFormatError, new_private_key, new_secret, standard_headers
from taskyard.webhooks.verify import VerifiedWebhook, WebhookVerificationError, verify

SECRET, OTHER, PRIVATE = new_secret(), new_secret(), new_private_key()
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BODY = b'{"type": "market.resolved", "price": 1.50}'


def genuine(body: bytes = BODY, timestamp: int = STAMP) -> dict[str, str]:
    return standard_headers([SECRET], "msg_1", timestamp, body)


def reason_for(headers: Mapping[Any, Any], body: Any = BODY, secrets: Any = None) -> str:
    with pytest.raises(WebhookVerificationError) as caught:
        verify(headers, body, secrets or SECRET.reveal(), now=NOW)
    return caught.value.reason


def test_a_genuine_webhook_is_taken() -> None:
    assert verify(genuine(), BODY, SECRET.reveal(), now=NOW) == VerifiedWebhook("msg_1", NOW)


def test_the_clock_is_used_when_no_time_is_given() -> None:
    fresh = genuine(timestamp=int(datetime.now(UTC).timestamp()))
    assert verify(fresh, BODY, [SECRET.reveal()]).id == "msg_1"


@pytest.mark.parametrize("change", [str.upper, str.title, str.lower])
def test_header_names_match_in_any_case(change: Any) -> None:
    headers = {change(name): value for name, value in genuine().items()}
    assert verify(headers, BODY, SECRET.reveal(), now=NOW).id == "msg_1"


@pytest.mark.parametrize("body_type", [bytearray, memoryview])
def test_bytes_of_any_kind_are_a_body(body_type: Any) -> None:
    assert verify(genuine(), body_type(BODY), SECRET.reveal(), now=NOW).id == "msg_1"


def test_any_pair_of_secret_and_signature_may_match() -> None:
    headers = standard_headers([OTHER, PRIVATE, SECRET], "msg_1", STAMP, BODY)
    headers["webhook-signature"] = "v2,future v1,AAAA v1a,AAAA  " + headers["webhook-signature"]
    for secrets in ([SECRET.reveal()], [new_secret().reveal(), OTHER.reveal()], [PRIVATE.public().reveal()]):
        assert verify(headers, BODY, secrets, now=NOW).id == "msg_1"


def test_a_tampered_request_is_refused() -> None:
    assert reason_for(genuine(), BODY + b" ") == "no_match"
    assert reason_for(genuine() | {"webhook-id": "msg_2"}) == "no_match"
    assert reason_for(genuine() | {"webhook-timestamp": str(STAMP - 1)}) == "no_match"
    assert reason_for(genuine(), secrets=OTHER.reveal()) == "no_match"


def test_a_body_that_was_parsed_and_written_again_is_refused() -> None:
    assert reason_for(genuine(), json.dumps(json.loads(BODY), separators=(",", ":")).encode()) == "no_match"


@pytest.mark.parametrize(
    ("age", "reason"),
    [(300, None), (-300, None), (301, "too_old"), (-301, "too_new"), (10**9, "too_old")],
)
def test_the_timestamp_may_lie_five_minutes_off_either_way(age: int, reason: str | None) -> None:
    headers = genuine(timestamp=STAMP - age)
    if reason is None:
        verify(headers, BODY, SECRET.reveal(), now=NOW)
    else:
        assert reason_for(headers) == reason


def test_the_tolerance_can_be_set() -> None:
    with pytest.raises(WebhookVerificationError, match="too_old"):
        verify(genuine(timestamp=STAMP - 2), BODY, SECRET.reveal(), tolerance=timedelta(seconds=1), now=NOW)
    verify(genuine(timestamp=STAMP - 9999), BODY, SECRET.reveal(), tolerance=timedelta.max, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed_once_as_text(name: str) -> None:
    headers = genuine()
    assert reason_for({key: value for key, value in headers.items() if key != name}) == "missing_header"
    assert reason_for(headers | {name: ""}) == "bad_header"
    assert reason_for(headers | {name: None}) == "bad_header"
    assert reason_for(headers | {name: headers[name].encode()}) == "bad_header"
    assert reason_for(headers | {name.upper(): headers[name]}) == "bad_header"


@pytest.mark.parametrize("text", ["x", "1.5", "-5", "+5", "1e9", " 1", "1_0", "٣", "0x10", "9" * 12, "\n1"])
def test_a_timestamp_is_whole_seconds_in_plain_digits(text: str) -> None:
    assert reason_for(genuine() | {"webhook-timestamp": text}) == "bad_timestamp"


@pytest.mark.parametrize(
    "signature",
    ["v1", "v1,", "v1,a,b", "v1,AAA", "v1,é", "v1a,é", "v1a,AAA", "v1a", ",", "v2,x", "\udcff", "v1," + "A" * 44],
)
def test_a_malformed_signature_matches_nothing(signature: str) -> None:
    assert (
        reason_for(genuine() | {"webhook-signature": signature}, secrets=[SECRET.reveal(), PRIVATE.public().reveal()])
        == "no_match"
    )


def test_an_endless_signature_list_is_refused_unread() -> None:
    assert reason_for(genuine() | {"webhook-signature": "v1,AAAA " * 1000}) == "bad_header"


@pytest.mark.parametrize("body", ["text", None, {"type": "x"}, 5])
def test_a_body_that_is_not_bytes_is_refused(body: Any) -> None:
    assert reason_for(genuine(), body) == "bad_body"


def test_the_receivers_own_mistakes_are_errors_of_another_kind() -> None:
    with pytest.raises(SecretFormatError):
        verify(genuine(), BODY, "no secret", now=NOW)
    with pytest.raises(ValueError, match="at least one secret"):
        verify(genuine(), BODY, [], now=NOW)
    with pytest.raises(ValueError, match="time zone"):
        verify(genuine(), BODY, SECRET.reveal(), now=datetime(2026, 1, 1))  # noqa: DTZ001  naive is the mistake


NAMES = (
    st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "WEBHOOK-ID"]) | st.text() | st.binary()
)
PIECES = st.sampled_from(["v1,", "v1a,", "v2,", " ", "AAAA", str(STAMP), "msg_1", "=", "."])
VALUES = st.text() | st.lists(PIECES).map("".join) | st.binary() | st.none() | st.integers()
BODIES: st.SearchStrategy[Any] = st.binary() | st.text() | st.none()


@settings(max_examples=300)
@given(changes=st.dictionaries(NAMES, VALUES), dropped=st.sets(NAMES), body=BODIES)
def test_no_input_raises_anything_but_the_one_error(changes: dict[Any, Any], dropped: set[Any], body: Any) -> None:
    headers: dict[Any, Any] = {**genuine(), **changes}
    for name in dropped:
        headers.pop(name, None)
    with contextlib.suppress(WebhookVerificationError):
        verify(headers, body, [SECRET.reveal(), PRIVATE.public().reveal()], now=NOW)
