"""Send requests on one event loop, bounded in time, size and target whatever the receiver does."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, cast

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from taskyard.webhooks.http.bounded_protocol import BoundedConnector
from taskyard.webhooks.http.error_codes import REQUEST_ERRORS, error_code, tls_reason
from taskyard.webhooks.http.request_timing import RequestTimer, tracing
from taskyard.webhooks.http.resolver import GuardedResolver, Lookup, guarded_socket, system_lookup, tls_context
from taskyard.webhooks.http.response import Answer, ErrorCode, Timeouts, as_text
from taskyard.webhooks.http.ssrf_policy import Network, UrlRefusedError, parse_url

READ_LIMIT: Final = 64 * 1024  # bytes of a body that are read; a longer one costs its connection
EXCERPT_LIMIT: Final = 16 * 1024  # bytes of a body that are kept

_RETRY_AFTER_LIMIT: Final = 200  # characters
_MAX_HEADERS: Final = 64
_MAX_HEADER_BYTES: Final = 8190  # of one line
# Below the 5 s after which many servers drop an idle connection, so that we seldom write into a closing one.
_KEEPALIVE: Final = 4.0  # seconds
# These say where the request ends and whom it is for; a caller's value could smuggle in a second request.
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te"})
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: a token


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """What holds for every request of a client."""

    allow_nets: tuple[Network, ...] = ()  # networks that may be reached although they are not public
    allow_http: bool = False
    extra_ca_file: Path | None = None  # PEM; trusted beside the system's authorities
    user_agent: str = "Taskyard-Webhooks"
    lookup: Lookup = system_lookup
    dns_ttl: int = 10  # seconds for which a name's addresses are remembered


class GuardedSession:
    """One aiohttp session with its guard, bound to the event loop that it is made on."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._resolver = GuardedResolver(options.lookup, options.allow_nets)
        self._session = aiohttp.ClientSession(
            connector=BoundedConnector(
                resolver=self._resolver,
                socket_factory=partial(guarded_socket, options.allow_nets),
                ssl=tls_context(options.extra_ca_file),
                limit=0,  # a hanging receiver must not use up the others' connections; callers bound what is in flight
                keepalive_timeout=_KEEPALIVE,
                ttl_dns_cache=options.dns_ttl,
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            response_class=_Response,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            max_headers=_MAX_HEADERS,
            trace_configs=[tracing()],
            headers={"User-Agent": options.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeouts: Timeouts) -> Answer:
        """
        Send one POST and return what came of it; raises nothing that a receiver can cause.

        A request is never sent twice: one that ends with its kept-alive connection may have been handled, and is an
        attempt like any other (`Answer.is_stale` tells it).
        """
        timer = RequestTimer()
        deadline = _now() + timeouts.total.total_seconds()
        try:
            target = self._target(url, headers)
            async with asyncio.timeout_at(deadline):
                response = await self._open(target, headers, body, timeouts.connect.total_seconds(), timer)
        except REQUEST_ERRORS as error:
            code = error_code(error, connected=timer.connected_at is not None)
            answer = Answer.failed(code, reason=tls_reason(error), phases=timer.phases())
            return replace(answer, is_stale=timer.is_reused and code is ErrorCode.CONNECTION_RESET)
        timer.answered_at = monotonic()
        received, is_whole = await _read(response, min(deadline, _now() + timeouts.body.total_seconds()))
        return Answer(
            status=response.status,
            excerpt=as_text(received[:EXCERPT_LIMIT]),
            truncated=not is_whole or len(received) > EXCERPT_LIMIT,
            retry_after=_retry_after(response),
            phases=timer.phases(),
            remote_ip=response.remote_ip,
        )

    async def close(self) -> None:
        """Close all connections. Requests under way end with an error."""
        await self._session.close()
        await self._resolver.close()

    def _target(self, url: str, headers: Mapping[str, str]) -> URL:
        target = parse_url(url)
        if target.scheme == "http" and not self._options.allow_http:
            raise UrlRefusedError("the URL must start with https://")
        if any(name.lower() in _OURS or not _HEADER_NAME.fullmatch(name) for name in headers):
            raise ValueError("a header that is malformed, or that only the client may set")
        return target

    async def _open(
        self, target: URL, headers: Mapping[str, str], body: bytes, connect: float, timer: RequestTimer
    ) -> "_Response":
        response = await self._session.post(
            target,
            headers=headers,
            data=body,
            allow_redirects=False,
            trace_request_ctx=timer,
            # aiohttp rounds a timeout up to a whole second unless the threshold is above it
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, ceil_threshold=connect + 1),
        )
        return cast("_Response", response)


class _Response(aiohttp.ClientResponse):
    """A response that remembers whom it is from: a short one gives its connection back before it can be asked."""

    remote_ip: str | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if connection.transport is not None:
            peer = connection.transport.get_extra_info("peername")
            self.remote_ip = peer[0] if peer else None
        return await super().start(connection)


async def _read(response: aiohttp.ClientResponse, until: float) -> tuple[bytes, bool]:
    """
    Read up to the limit, or until the loop's clock says `until`; also return whether that was the whole body.

    The status has decided already, so a body that is slow, broken or endless ends the reading and nothing else.
    """
    received = bytearray()
    is_whole = False
    try:
        async with asyncio.timeout_at(until):
            while len(received) < READ_LIMIT and not is_whole:
                chunk = await response.content.read(READ_LIMIT - len(received))
                received += chunk
                is_whole = not chunk
    except REQUEST_ERRORS:
        is_whole = False
    finally:
        if is_whole:
            response.release()
        else:
            response.close()  # the rest is not worth waiting for, so the connection cannot be used again
    return bytes(received), is_whole


def _retry_after(response: aiohttp.ClientResponse) -> str | None:
    raw = response.headers.get("Retry-After")
    return None if raw is None else as_text(raw[:_RETRY_AFTER_LIMIT].encode("utf-8", "surrogateescape"))


def _now() -> float:
    return asyncio.get_running_loop().time()
