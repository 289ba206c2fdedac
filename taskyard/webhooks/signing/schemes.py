"""
Sign what is sent: Standard Webhooks v1 and v1a, and the Predictify headers.

Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets as random_source
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SYMMETRIC_PREFIX: Final = "whsec_"
PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
_NEW_KEY_BYTES: Final = 32
_ED25519_BYTES: Final = 32

# A full stop would let an id swallow part of the timestamp in the signed content; a line break would split the header.
_ID: Final = re.compile(r"[!-\-/-~]{1,255}")


class SecretFormatError(ValueError):
    """A secret's text is not of a form that can sign or verify. The message never holds any part of the text."""


class SigningSecret(Protocol):
    """A secret that can sign one message."""

    def signature(self, content: bytes) -> str:
        """Return one item of the signature list, ``version,base64``."""
        ...

    def reveal(self) -> str:
        """Return the text form. The only way to the secret: `repr` and `str` never show it."""
        ...

    def receiver_key(self) -> str:
        """Return the text form of what the receiver verifies with."""
        ...


class Verifier(Protocol):
    """What a receiver holds to check signatures of one version."""

    def accepts(self, content: bytes, signature: str) -> bool:
        """Tell in constant time whether `signature` (``version,base64``, any text) is right for `content`."""
        ...


@dataclass(frozen=True, slots=True)
class SymmetricSecret:
    """
    A shared HMAC key of 24 to 64 bytes, written ``whsec_`` + base64; both sides hold it.

    Raises:
        SecretFormatError: The key is too short or too long.
    """

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not MIN_KEY_BYTES <= len(self.key) <= MAX_KEY_BYTES:
            raise SecretFormatError(
                f"a webhook secret has {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes, this one has {len(self.key)}"
            )

    def signature(self, content: bytes) -> str:
        """Return ``v1,`` and the base64 of HMAC-SHA256 over `content`."""
        return "v1," + base64.b64encode(hmac.digest(self.key, content, hashlib.sha256)).decode("ascii")

    def accepts(self, content: bytes, signature: str) -> bool:
        """Tell in constant time whether `signature` is this secret's for `content`."""
        return hmac.compare_digest(self.signature(content).encode(), signature.encode("utf-8", "surrogatepass"))

    def reveal(self) -> str:
        """Return the secret's text form, to be shown once to its owner."""
        return SYMMETRIC_PREFIX + base64.b64encode(self.key).decode("ascii")

    def receiver_key(self) -> str:
        """Return the secret itself: both sides share it."""
        return self.reveal()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """
    The public half of an ed25519 pair (32 bytes), written ``whpk_`` + base64; not a secret.

    Raises:
        SecretFormatError: The key has not 32 bytes.
    """

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != _ED25519_BYTES:
            raise SecretFormatError(f"a public webhook key has {_ED25519_BYTES} bytes, this one has {len(self.key)}")

    def accepts(self, content: bytes, signature: str) -> bool:
        """Tell whether `signature` (``v1a,base64``, any text) was made by the pair's private half over `content`."""
        version, _, encoded = signature.partition(",")
        if version != "v1a":
            return False
        try:
            raw = base64.b64decode(encoded.encode("ascii"), validate=True)
            Ed25519PublicKey.from_public_bytes(self.key).verify(raw, content)
        except (InvalidSignature, ValueError):  # not ASCII, not base64, wrong length, or simply wrong
            return False
        return True

    def reveal(self) -> str:
        """Return the key's text form."""
        return PUBLIC_PREFIX + base64.b64encode(self.key).decode("ascii")


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """
    The private half of an ed25519 pair: its 32-byte seed, written ``whsk_`` + base64; only the sender holds it.

    Raises:
        SecretFormatError: The seed has not 32 bytes.
    """

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != _ED25519_BYTES:
            raise SecretFormatError(f"a private webhook key has a seed of {_ED25519_BYTES} bytes, not {len(self.seed)}")

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """
        Read a seed of 32 bytes, or 64 bytes of seed and public key as other senders write it.

        Raises:
            SecretFormatError: Neither 32 nor 64 bytes, or the second half is not the seed's public key.
        """
        if len(raw) not in {_ED25519_BYTES, 2 * _ED25519_BYTES}:
            raise SecretFormatError(f"a private webhook key has 32 or 64 bytes, this one has {len(raw)}")
        secret = cls(raw[:_ED25519_BYTES])
        if raw[_ED25519_BYTES:] not in {b"", secret.public().key}:
            raise SecretFormatError("a private webhook key of 64 bytes must end with its own public key")
        return secret

    def public(self) -> PublicKey:
        """Return the half that receivers verify with."""
        return PublicKey(Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw())

    def signature(self, content: bytes) -> str:
        """Return ``v1a,`` and the base64 of the ed25519 signature over `content`."""
        raw = Ed25519PrivateKey.from_private_bytes(self.seed).sign(content)
        return "v1a," + base64.b64encode(raw).decode("ascii")

    def reveal(self) -> str:
        """Return the key's text form: seed and public key, 64 bytes in base64."""
        return PRIVATE_PREFIX + base64.b64encode(self.seed + self.public().key).decode("ascii")

    def receiver_key(self) -> str:
        """Return the public key, ``whpk_`` and base64; it may be shown to anybody."""
        return self.public().reveal()


def new_secret() -> SymmetricSecret:
    """Make a random shared secret of 32 bytes."""
    return SymmetricSecret(random_source.token_bytes(_NEW_KEY_BYTES))


def new_private_key() -> PrivateKey:
    """Make a random ed25519 key; give its `public()` half to the receiver."""
    return PrivateKey(random_source.token_bytes(_ED25519_BYTES))


def parse_secret(text: str) -> SymmetricSecret | PrivateKey:
    """
    Read a sender's secret: ``whsec_`` or ``whsk_`` and base64 (missing ``=`` at the end is forgiven).

    Raises:
        SecretFormatError: Another prefix, not base64, or a wrong length.
    """
    if text.startswith(SYMMETRIC_PREFIX):
        return SymmetricSecret(_decoded(text.removeprefix(SYMMETRIC_PREFIX)))
    if text.startswith(PRIVATE_PREFIX):
        return PrivateKey.from_bytes(_decoded(text.removeprefix(PRIVATE_PREFIX)))
    raise SecretFormatError(f"a webhook secret starts with {SYMMETRIC_PREFIX} or {PRIVATE_PREFIX}")


def parse_verifier(text: str) -> SymmetricSecret | PublicKey:
    """
    Read what a receiver holds: ``whsec_`` or ``whpk_`` and base64.

    Raises:
        SecretFormatError: Another prefix, not base64, or a wrong length.
    """
    if text.startswith(SYMMETRIC_PREFIX):
        return SymmetricSecret(_decoded(text.removeprefix(SYMMETRIC_PREFIX)))
    if text.startswith(PUBLIC_PREFIX):
        return PublicKey(_decoded(text.removeprefix(PUBLIC_PREFIX)))
    raise SecretFormatError(f"a webhook verification key starts with {SYMMETRIC_PREFIX} or {PUBLIC_PREFIX}")


def signed_content(webhook_id: str, timestamp: int, body: bytes) -> bytes:
    """
    Return the bytes that a signature covers: ``id.timestamp.body``.

    Raises:
        ValueError: The id holds a full stop, a space or a control character, is empty or over 255 characters,
            or the timestamp (Unix seconds) is negative.
    """
    if not _ID.fullmatch(webhook_id):
        raise ValueError("a webhook id has 1 to 255 visible ASCII characters and no full stop")
    if timestamp < 0:
        raise ValueError(f"a webhook timestamp is Unix seconds, not {timestamp}")
    return b"%s.%d.%s" % (webhook_id.encode("ascii"), timestamp, body)


def sign(secrets: Sequence[SigningSecret], webhook_id: str, timestamp: int, body: bytes) -> str:
    """
    Sign exactly `body` with every active secret, newest first; return the space-separated list for the header.

    Raises:
        ValueError: No secret, or an id or timestamp that must not be signed (see `signed_content`).
    """
    if not secrets:
        raise ValueError("signing needs at least one secret")
    content = signed_content(webhook_id, timestamp, body)
    return " ".join(secret.signature(content) for secret in secrets)


def standard_headers(secrets: Sequence[SigningSecret], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """
    Return the three headers of Standard Webhooks; the timestamp (Unix seconds) is that of this attempt.

    Raises:
        ValueError: As `sign`.
    """
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, webhook_id, timestamp, body),
    }


def predictify_headers(secret: SymmetricSecret, event_type: str, delivery_id: str, body: bytes) -> dict[str, str]:
    """
    Return the headers that Predictify's receivers know: hex HMAC-SHA256 over the raw body only.

    They carry no timestamp, so a captured request can be replayed for ever: for receivers that cannot change.
    Only one signature fits: give the newest secret.
    """
    return {
        "X-Predictify-Signature": "sha256=" + hmac.new(secret.key, body, hashlib.sha256).hexdigest(),
        "X-Predictify-Event": event_type,
        "X-Predictify-Delivery": delivery_id,
    }


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause would carry the secret's text into a traceback
        raise SecretFormatError("a webhook secret is base64 after its prefix") from None
