"""What is sent is signed as Standard Webhooks and Predictify say."""

import base64
import hashlib
import hmac
import pickle
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from taskyard.webhooks.signing.schemes import (
    PrivateKey,
    PublicKey,
    SecretFormatError,
    SymmetricSecret,
    new_private_key,
    new_secret,
    parse_secret,
    parse_verifier,
    predictify_headers,
    sign,
    signed_content,
    standard_headers,
)

SECRET_A = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET_B = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SECRET_C = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
ID_A, TIME_A, BODY_A = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE_A = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SIGNATURE_C = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

VECTORS = [
    pytest.param(SECRET_A, ID_A, TIME_A, BODY_A, SIGNATURE_A, id="A"),
    pytest.param(
        SECRET_B,
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        id="B",
    ),
    pytest.param(SECRET_C, ID_A, TIME_A, BODY_A, SIGNATURE_C, id="C"),
]


@pytest.mark.parametrize(("secret", "webhook_id", "timestamp", "body", "expected"), VECTORS)
def test_published_vectors_are_met_byte_for_byte(
    secret: str, webhook_id: str, timestamp: int, body: bytes, expected: str
) -> None:
    assert sign([parse_secret(secret)], webhook_id, timestamp, body) == expected


def test_during_a_rotation_every_secret_signs_newest_first() -> None:
    secrets = [parse_secret(SECRET_A), parse_secret(SECRET_C)]
    assert sign(secrets, ID_A, TIME_A, BODY_A) == f"{SIGNATURE_A} {SIGNATURE_C}"


def test_an_independent_verifier_accepts_either_secret_of_a_rotation() -> None:
    new, old, stranger = new_secret(), new_secret(), new_secret()
    body = '{"stadt":"Köln"}'.encode()
    headers = standard_headers([new, old], "msg_1", int(datetime.now(UTC).timestamp()), body)
    for secret in (new, old):
        Webhook(secret.reveal()).verify(body, headers)
    for wrong in ((stranger, body), (new, body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(wrong[0].reveal()).verify(wrong[1], headers)


def test_the_three_standard_headers_are_sent() -> None:
    assert standard_headers([parse_secret(SECRET_A)], ID_A, TIME_A, BODY_A) == {
        "webhook-id": ID_A,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE_A,
    }


def test_predictify_headers_hold_the_hex_hmac_of_the_raw_body() -> None:
    secret = SymmetricSecret(b"k" * 32)
    assert predictify_headers(secret, "market.resolved", "d-1", BODY_A) == {
        "X-Predictify-Signature": "sha256=" + hmac.new(b"k" * 32, BODY_A, hashlib.sha256).hexdigest(),
        "X-Predictify-Event": "market.resolved",
        "X-Predictify-Delivery": "d-1",
    }


@pytest.mark.parametrize("webhook_id", ["", "a.b", "a b", "a\nb", "a\r\nX: y", "ä", "a\x00", "x" * 256])
def test_an_id_that_could_blur_the_signed_content_is_refused(webhook_id: str) -> None:
    with pytest.raises(ValueError, match="webhook id"):
        sign([new_secret()], webhook_id, TIME_A, BODY_A)


def test_signing_needs_a_secret_and_a_time() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        sign([], ID_A, TIME_A, BODY_A)
    with pytest.raises(ValueError, match="Unix seconds"):
        sign([new_secret()], ID_A, -1, BODY_A)


def encoded(prefix: str, length: int) -> str:
    return prefix + base64.b64encode(b"k" * length).decode()


@pytest.mark.parametrize("text", [encoded("whsec_", 24), encoded("whsec_", 64), encoded("whsk_", 32), SECRET_C])
def test_secrets_of_allowed_lengths_are_read(text: str) -> None:
    parse_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        encoded("whsec_", 23),
        encoded("whsec_", 65),
        encoded("whsk_", 24),
        encoded("whsk_", 33),
        encoded("whsk_", 64),  # its second half is not the public key of the first
        encoded("whpk_", 32),
        encoded("", 32),
        "whsec_not-base-64-not-base-64-not-base-64",
        "whsec_ü",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",  # 31 characters: no length of bytes has so many
        "WHSEC_" + SECRET_A.removeprefix("whsec_"),
    ],
)
def test_other_secrets_are_refused_and_never_shown(text: str) -> None:
    with pytest.raises(SecretFormatError) as caught:
        parse_secret(text)
    secret = re.sub("^wh(sec|sk|pk)_", "", text)
    assert not secret or secret not in str(caught.value)
    assert caught.value.__cause__ is None


def test_padding_may_be_missing() -> None:
    text = encoded("whsec_", 32)
    assert text.endswith("=")
    assert parse_secret(text.rstrip("=")) == parse_secret(text)


def test_the_secret_shows_in_no_repr_or_str() -> None:
    key = bytes(range(32))
    for secret in (SymmetricSecret(key), PrivateKey(key)):
        text = f"{secret!r} {secret} {[secret]}"
        assert repr(key) not in text
        assert secret.reveal() not in text
        assert base64.b64encode(key).decode()[:8] not in text


def test_new_secrets_differ_and_survive_a_round_trip() -> None:
    shared, private = new_secret(), new_private_key()
    assert shared != new_secret()
    assert len(shared.key) == 32
    assert parse_secret(shared.reveal()) == shared
    assert parse_secret(private.reveal()) == private
    assert parse_verifier(private.public().reveal()) == private.public()
    assert parse_verifier(shared.reveal()) == shared
    assert pickle.loads(pickle.dumps(private)) == private  # noqa: S301  own bytes


def test_a_private_key_is_nothing_to_verify_with() -> None:
    with pytest.raises(SecretFormatError):
        parse_verifier(SECRET_C)
    with pytest.raises(SecretFormatError):
        PublicKey(b"short")


@given(
    body=st.binary(max_size=2000),
    timestamp=st.integers(0, 10**10),
    webhook_id=st.from_regex(r"[\w-]{1,40}", fullmatch=True, alphabet=st.characters(max_codepoint=127)),
)
def test_whatever_is_signed_verifies_and_a_changed_byte_does_not(body: bytes, timestamp: int, webhook_id: str) -> None:
    for secret, verifier in ((SHARED, SHARED), (PRIVATE, PRIVATE.public())):
        content = signed_content(webhook_id, timestamp, body)
        signature = secret.signature(content)
        assert verifier.accepts(content, signature)
        assert not verifier.accepts(content + b"!", signature)


SHARED, PRIVATE = SymmetricSecret(b"k" * 32), PrivateKey(b"p" * 32)
