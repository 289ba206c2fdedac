"""Name what went wrong in a request: from the HTTP library's exceptions to our error codes."""

import errno
import ssl
from typing import Final

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from tasks.webhooks.addresses import BlockedAddressError, UrlRefusedError
from tasks.webhooks.answers import ErrorCode

# All that a request may end with; anything else is a fault of ours and must be seen.
REQUEST_ERRORS: Final = (aiohttp.ClientError, OSError, ValueError)

_REASON_LIMIT: Final = 120  # characters

# The first class that fits decides, so the special ones stand above their parents.
_BY_CLASS: Final[tuple[tuple[type[Exception], ErrorCode], ...]] = (
    (BlockedAddressError, ErrorCode.BLOCKED_ADDRESS),
    (UrlRefusedError, ErrorCode.INVALID_URL),
    (aiohttp.InvalidURL, ErrorCode.INVALID_URL),
    (aiohttp.NonHttpUrlClientError, ErrorCode.INVALID_URL),
    (aiohttp.ClientConnectorDNSError, ErrorCode.DNS_ERROR),
    (ssl.SSLError, ErrorCode.TLS_ERROR),
    (aiohttp.ClientSSLError, ErrorCode.TLS_ERROR),
    (aiohttp.ClientConnectorError, ErrorCode.CONNECTION_FAILED),
    (LineTooLong, ErrorCode.RESPONSE_TOO_LARGE),
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
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError) and root.verify_code in _NAME_MISMATCH:
        return ErrorCode.TLS_NAME_MISMATCH
    if isinstance(root, BlockedAddressError | ssl.SSLError | LineTooLong):
        error = root
    code = next(code for kind, code in _BY_CLASS if isinstance(error, kind))
    if code is ErrorCode.CONNECTION_FAILED and isinstance(root, OSError):
        return _BY_ERRNO.get(root.errno, code)
    return code


def tls_reason(error: Exception) -> str:
    """Return the TLS library's short reason (``certificate has expired``), or an empty text for another error."""
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return root.verify_message.rstrip(".")[:_REASON_LIMIT]
    if isinstance(root, ssl.SSLError):
        return (root.reason or "").lower().replace("_", " ")[:_REASON_LIMIT]
    return ""


def _root(error: Exception) -> BaseException:
    """Return what the library wrapped: it raises its own classes from the operating system's."""
    return error.__cause__ or error
