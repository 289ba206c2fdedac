"""Name what went wrong in a request: from the HTTP library's exceptions to our error codes."""

import errno
import ssl
from typing import Final

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from taskyard.webhooks.http.response import ErrorCode
from taskyard.webhooks.http.ssrf_policy import BlockedAddressError, UrlRefusedError

# All that a request may end with; anything else is a fault of ours and must be seen.
REQUEST_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)

_REASON_LIMIT: Final = 120  # characters

# The first class that fits decides, so the special ones stand above their parents.
_BY_CLASS: Final[tuple[tuple[type[BaseException], ErrorCode], ...]] = (
    (BlockedAddressError, ErrorCode.BLOCKED_ADDRESS),
    (UrlRefusedError, ErrorCode.INVALID_URL),
    (aiohttp.InvalidURL, ErrorCode.INVALID_URL),
    (aiohttp.NonHttpUrlClientError, ErrorCode.INVALID_URL),
    (aiohttp.ClientConnectorDNSError, ErrorCode.DNS_ERROR),
    (ssl.SSLError, ErrorCode.TLS_ERROR),
    (aiohttp.ClientSSLError, ErrorCode.TLS_ERROR),
    (aiohttp.ClientConnectorError, ErrorCode.CONNECTION_FAILED),
    (LineTooLong, ErrorCode.RESPONSE_TOO_LARGE),
    (BadHttpMessage, ErrorCode.PROTOCOL_ERROR),
    (aiohttp.ClientResponseError, ErrorCode.PROTOCOL_ERROR),
    (aiohttp.ClientPayloadError, ErrorCode.PROTOCOL_ERROR),
    (aiohttp.ClientConnectionError, ErrorCode.CONNECTION_RESET),
    (OSError, ErrorCode.CONNECTION_RESET),
    (ValueError, ErrorCode.INVALID_REQUEST),
)
_BY_ERRNO: Final[dict[int | None, ErrorCode]] = {
    errno.ECONNREFUSED: ErrorCode.CONNECTION_REFUSED,
    errno.ETIMEDOUT: ErrorCode.TIMEOUT_CONNECT,
    errno.ECONNRESET: ErrorCode.CONNECTION_RESET,
    errno.ECONNABORTED: ErrorCode.CONNECTION_RESET,
    errno.EPIPE: ErrorCode.CONNECTION_RESET,
    errno.ENETUNREACH: ErrorCode.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ErrorCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ErrorCode.NETWORK_UNREACHABLE,  # no local address of that family
}
# OpenSSL's verify codes for a certificate that is good, but for another host or IP address.
_NAME_MISMATCH: Final = frozenset({62, 64})


def error_code(error: Exception, *, connected: bool) -> ErrorCode:
    """Return the code for one of `REQUEST_ERRORS`; `connected` tells a late answer from a late connection."""
    if isinstance(error, TimeoutError):
        return ErrorCode.TIMEOUT_TOTAL if connected else ErrorCode.TIMEOUT_CONNECT
    told = _telling_cause(error)
    if isinstance(told, ssl.SSLCertVerificationError) and told.verify_code in _NAME_MISMATCH:
        return ErrorCode.TLS_NAME_MISMATCH
    if "Too many headers" in str(told):
        return ErrorCode.RESPONSE_TOO_LARGE
    code = next(code for kind, code in _BY_CLASS if isinstance(told, kind))
    if code is ErrorCode.CONNECTION_FAILED and isinstance(error, aiohttp.ClientConnectorError):
        # asyncio reports a connection lost during the TLS handshake without an errno
        lost = ErrorCode.CONNECTION_RESET if isinstance(error.os_error, ConnectionError) else code
        return _BY_ERRNO.get(error.os_error.errno, lost)
    return code


def tls_reason(error: Exception) -> str:
    """Return the TLS library's short reason (``certificate has expired``), or an empty text for another error."""
    told = _telling_cause(error)
    if isinstance(told, ssl.SSLCertVerificationError):
        return told.verify_message.rstrip(".")[:_REASON_LIMIT]
    if isinstance(told, ssl.SSLError):
        return (told.reason or "").lower().replace("_", " ")[:_REASON_LIMIT]
    return ""


def _telling_cause(error: Exception) -> BaseException:
    """Return the innermost telling error among `error` and its causes: libraries wrap it, some of them twice."""
    told: BaseException = error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BlockedAddressError | LineTooLong | ssl.SSLError | BadHttpMessage):
            told = cause
        cause = cause.__cause__
    return told
