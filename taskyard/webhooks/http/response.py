"""The outcome of one request: the receiver's answer, or why there was none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from taskyard.webhooks.http.ssrf_policy import BLOCKED_MESSAGE

MASK: Final = "***"
SHORTEST_SECRET: Final = 6  # characters; a shorter value is no credential, and would mask common words


class ErrorCode(StrEnum):
    """Why a request got no HTTP answer. Stored with the attempt, counted in metrics: only ever add to it."""

    DNS_ERROR = "dns_error"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_RESET = "connection_reset"
    CONNECTION_FAILED = "connection_failed"
    NETWORK_UNREACHABLE = "network_unreachable"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_TOTAL = "timeout_total"
    TLS_ERROR = "tls_error"
    TLS_NAME_MISMATCH = "tls_name_mismatch"
    PROTOCOL_ERROR = "protocol_error"
    RESPONSE_TOO_LARGE = "response_too_large"
    BLOCKED_ADDRESS = "blocked_address"
    INVALID_URL = "invalid_url"
    INVALID_REQUEST = "invalid_request"
    UNSIGNED = "unsigned"


# Fixed texts: what a library says of an error may hold addresses, bytes of the answer, or header values.
MESSAGES: Final[dict[ErrorCode, str]] = {
    ErrorCode.DNS_ERROR: "the endpoint's name could not be resolved",
    ErrorCode.CONNECTION_REFUSED: "the endpoint refused the connection",
    ErrorCode.CONNECTION_RESET: "the endpoint closed the connection before it answered",
    ErrorCode.CONNECTION_FAILED: "no connection could be made",
    ErrorCode.NETWORK_UNREACHABLE: "there is no route to the endpoint",
    ErrorCode.TIMEOUT_CONNECT: "no connection in time",
    ErrorCode.TIMEOUT_TOTAL: "connected, but no answer in time",
    ErrorCode.TLS_ERROR: "no secure connection could be made",
    ErrorCode.TLS_NAME_MISMATCH: "the endpoint's certificate is for another name",
    ErrorCode.PROTOCOL_ERROR: "the answer is not HTTP",
    ErrorCode.RESPONSE_TOO_LARGE: "the answer's headers are too large",
    ErrorCode.BLOCKED_ADDRESS: BLOCKED_MESSAGE,
    ErrorCode.INVALID_URL: "the endpoint's URL is not valid",
    ErrorCode.INVALID_REQUEST: "the request cannot be sent: a header is not valid",
    ErrorCode.UNSIGNED: "not sent: the endpoint has no secret that could sign the request",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one request may take, on the wall clock."""

    connect: timedelta = timedelta(seconds=5)  # name, TCP and TLS together
    total: timedelta = timedelta(seconds=15)  # everything, to the last byte that is read
    body: timedelta = timedelta(seconds=2)  # patience for the body once the status is known; it decides nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """How long the parts took, in milliseconds; None for a part that did not happen or did not end."""

    dns_ms: float | None = None
    connect_ms: float | None = None  # TCP and TLS; None on a connection that was kept alive
    ttfb_ms: float | None = None  # from the start until the answer's headers were complete
    total_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The outcome of one request: either `status` or `error` is set."""

    status: int | None = None
    error: ErrorCode | None = None
    detail: str = ""  # words for `error`, from a fixed list; for TLS also the library's reason
    excerpt: str = field(default="", repr=False)  # up to 16 KiB of the body as text that any database takes
    truncated: bool = False  # the body was longer, or did not end in time
    retry_after: str | None = None  # the raw header, up to 200 characters
    phases: Phases = Phases()
    remote_ip: str | None = None
    is_stale: bool = False  # a kept-alive connection was closed: maybe before it carried the request, maybe after

    @classmethod
    def failed(
        cls, code: ErrorCode, *, reason: str = "", phases: Phases | None = None, ip: str | None = None
    ) -> "Answer":
        """Make an answer for a request that got none. A blocked address tells neither its times nor its IP."""
        detail = f"{MESSAGES[code]} ({reason})" if reason else MESSAGES[code]
        if code is ErrorCode.BLOCKED_ADDRESS:
            return cls(error=code, detail=detail)
        return cls(error=code, detail=detail, phases=phases or Phases(), remote_ip=ip)

    @property
    def is_success(self) -> bool:
        """Whether the receiver took the message: any 2xx, and nothing else."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004  the 2xx class


def mask_echoes(answer: Answer, headers: Mapping[str, str]) -> Answer:
    """Return the answer with every echo of a request header's value masked in its excerpt: it may be a credential."""
    values = {part for value in headers.values() for part in (value, *value.split()) if len(part) >= SHORTEST_SECRET}
    excerpt = answer.excerpt
    for value in sorted(values, key=len, reverse=True):
        for form in {value, json.dumps(value)[1:-1], quote(value), quote(value, safe="")}:
            excerpt = excerpt.replace(form, MASK)
        if answer.truncated:  # its last characters may be the beginning of an echo
            cut = next((n for n in range(len(value) - 1, SHORTEST_SECRET - 1, -1) if excerpt.endswith(value[:n])), 0)
            excerpt = excerpt[: len(excerpt) - cut] + MASK if cut else excerpt
    return replace(answer, excerpt=excerpt)


def as_text(raw: bytes) -> str:
    """Decode hostile bytes for storage: never fails, holds no NUL (PostgreSQL refuses it in text)."""
    return raw.decode("utf-8", errors="replace").replace("\x00", "\ufffd")
