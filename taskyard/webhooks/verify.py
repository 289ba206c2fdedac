"""
For receivers: tell whether a request is a genuine, fresh webhook.

    from taskyard.webhooks.verify import WebhookVerificationError, verify

    message = verify(request.headers, raw_body, "whsec_...")  # before the body is parsed
    if already_seen(message.id): ...

Source: Standard Webhooks 1.0.0, "Verifying webhook authenticity".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from taskyard.webhooks.signing.schemes import Verifier, parse_verifier, signed_content

type Reason = Literal["missing_header", "bad_header", "bad_timestamp", "too_old", "too_new", "bad_body", "no_match"]

# A rotation needs two or three signatures of about 50 to 100 characters; the bound keeps a hostile list cheap.
_MAX_SIGNATURE_CHARS: Final = 4096
_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")  # up to the year 5138


class WebhookVerificationError(Exception):
    """
    A request is not a genuine, fresh webhook; answer it with 400 or 401.

    Attributes:
        reason: Why, as a fixed word.
        detail: Why, for a log; holds nothing that the sender wrote.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class VerifiedWebhook:
    """What a genuine request says of itself."""

    id: str  # the same on every retry: the key to deduplicate by
    timestamp: datetime  # of this attempt, UTC


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: str | Sequence[str],
    *,
    tolerance: timedelta = timedelta(minutes=5),
    now: datetime | None = None,
) -> VerifiedWebhook:
    """
    Check the three Standard Webhooks headers over exactly the received bytes.

    Header names match in any case. Several signatures and several secrets may be given: one matching pair is enough,
    unknown signature versions are passed over. Comparison takes the same time whatever the signature.

    Args:
        headers: The request's headers.
        body: The raw body as received; a body that was parsed and written again does not verify.
        secrets: One or several of ``whsec_...`` (shared secret) or ``whpk_...`` (public key).
        tolerance: How far the timestamp may lie from `now`, in either direction.
        now: The time to compare with, timezone-aware; None means the clock.

    Raises:
        WebhookVerificationError: For everything that can be wrong with headers, timestamp, signature or body.
        SecretFormatError: One of the receiver's own `secrets` is malformed.
        ValueError: No secret was given, or `now` has no time zone.
    """
    verifiers = [parse_verifier(text) for text in ([secrets] if isinstance(secrets, str) else secrets)]
    if not verifiers:
        raise ValueError("verify needs at least one secret")
    moment = datetime.now(UTC) if now is None else now
    if moment.tzinfo is None:
        raise ValueError("`now` must have a time zone")
    if not isinstance(body, bytes | bytearray | memoryview):
        raise WebhookVerificationError("bad_body", "the body must be the raw bytes as received")
    webhook_id, timestamp, signatures = (_only(headers, name) for name in ("id", "timestamp", "signature"))
    seconds = _fresh(timestamp, tolerance, moment)
    if not _matches(verifiers, _content(webhook_id, seconds, bytes(body)), signatures):
        raise WebhookVerificationError("no_match", "no signature matches")
    return VerifiedWebhook(webhook_id, datetime.fromtimestamp(seconds, UTC))


def _only(headers: Mapping[Any, Any], name: str) -> str:  # Any: frameworks put bytes and None here
    wanted = f"webhook-{name}"
    found = [value for key, value in headers.items() if isinstance(key, str) and key.lower() == wanted]
    if not found:
        raise WebhookVerificationError("missing_header", f"the header {wanted} is missing")
    if len(found) > 1:
        raise WebhookVerificationError("bad_header", f"the header {wanted} is there more than once")
    value = found[0]
    if not isinstance(value, str) or not value:
        raise WebhookVerificationError("bad_header", f"the header {wanted} is not text, or empty")
    return value


def _fresh(text: str, tolerance: timedelta, now: datetime) -> int:
    if not _TIMESTAMP.fullmatch(text):
        raise WebhookVerificationError("bad_timestamp", "the timestamp is not a whole number of Unix seconds")
    seconds = int(text)
    age = now.timestamp() - seconds
    if age > tolerance.total_seconds():
        raise WebhookVerificationError("too_old", "the timestamp is too old")
    if age < -tolerance.total_seconds():
        raise WebhookVerificationError("too_new", "the timestamp lies in the future")
    return seconds


def _content(webhook_id: str, seconds: int, body: bytes) -> bytes:
    try:
        return signed_content(webhook_id, seconds, body)
    except ValueError as error:
        raise WebhookVerificationError("bad_header", "the header webhook-id holds characters that no id has") from error


def _matches(verifiers: Sequence[Verifier], content: bytes, signatures: str) -> bool:
    if len(signatures) > _MAX_SIGNATURE_CHARS:
        raise WebhookVerificationError("bad_header", "the header webhook-signature is too long")
    # All are tried before one counts: the time must not tell which pair matched.
    matches = [verifier.accepts(content, item) for item in signatures.split(" ") for verifier in verifiers]
    return any(matches)
