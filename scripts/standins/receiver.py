"""
A receiver of our own: takes webhooks (up to 1 MiB) on loopback, remembers them, and answers as told.

For demos and tests.

>>> with Receiver() as receiver:
...     receiver.answers(503, 200)  # first this, then that, then 200 for ever
...     receiver.url.startswith("http://127.0.0.1:")
True
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition, Thread
from time import monotonic
from typing import Final, Self

from aiohttp import web

_START_TIMEOUT: Final = 10.0  # seconds
_BACKLOG: Final = 1024
_PATIENCE: Final = 0.1  # seconds, for replies under way when it stops


@dataclass(frozen=True, slots=True)
class Captured:
    """One request as it arrived."""

    method: str
    path: str  # with the query
    headers: Mapping[str, str]  # looked up in any case
    body: bytes = field(repr=False)
    received_at: datetime  # UTC
    monotonic_at: float  # seconds, to measure with
    peer_port: int  # the sender's; the same for requests of one connection

    @property
    def webhook_id(self) -> str:
        """The `webhook-id` header; empty if there is none."""
        return self.headers.get("webhook-id", "")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it answers


type Decide = Callable[[Captured], Reply | int]


class Receiver:
    """
    An HTTP server in a thread of its own; a context manager. All methods may be called from any thread.

    Args:
        decide: Chooses the reply to each request that no `answers` is left for; None means 200. Called in the
            receiver's thread, one request at a time: it must not block.
        port: The port on 127.0.0.1; 0 takes a free one.
        tls: Serve HTTPS with this context.
        host_name: The name that `url` shows; None means the address.
    """

    def __init__(
        self,
        decide: Decide | None = None,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        host_name: str | None = None,
    ) -> None:
        self._decide: Decide = decide or (lambda _request: 200)
        self._wanted_port = port
        self._tls = tls
        self._host_name = host_name or "127.0.0.1"
        self._changed = Condition()
        self._requests: list[Captured] = []
        self._scripted: deque[Reply | int] = deque()
        self._port: int | None = None
        self._start_error: OSError | None = None
        self._loop = asyncio.new_event_loop()
        self._finished = asyncio.Event()
        self._thread = Thread(target=self._run, name="webhook-receiver", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """
        Start to listen; returns when connections are accepted.

        Raises:
            OSError: The port is taken.
        """
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._port or self._start_error, _START_TIMEOUT)
        if self._start_error is not None:
            raise self._start_error

    def stop(self) -> None:
        """Close all connections and end the thread. What was captured stays readable. Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finished.set)
            self._thread.join(_START_TIMEOUT)

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the start."""
        return self._port or 0

    @property
    def url(self) -> str:
        """The address to register as an endpoint."""
        return f"{'https' if self._tls else 'http'}://{self._host_name}:{self.port}/hook"

    @property
    def requests(self) -> tuple[Captured, ...]:
        """All requests so far, in order of arrival."""
        with self._changed:
            return tuple(self._requests)

    def answers(self, *replies: Reply | int) -> None:
        """Answer the next requests with these, one each, in order."""
        with self._changed:
            self._scripted.extend(replies)

    def decides(self, decide: Decide) -> None:
        """Choose the replies in another way from now on, after what `answers` still holds."""
        with self._changed:
            self._decide = decide

    def clear(self) -> None:
        """Forget the captured requests and the scripted answers."""
        with self._changed:
            self._requests.clear()
            self._scripted.clear()

    def wait_for(self, count: int, timeout: float = 10.0) -> tuple[Captured, ...]:
        """
        Wait until `count` requests have arrived in all, and return all.

        Args:
            count: How many.
            timeout: For how long to wait, in seconds.

        Raises:
            TimeoutError: Fewer came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{len(self._requests)} of {count} requests arrived within {timeout:g} s")
            return tuple(self._requests)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            listener = socket.create_server(("127.0.0.1", self._wanted_port), backlog=_BACKLOG)
        except OSError as error:
            self._started(error=error)
            return
        with listener:
            listener.settimeout(0)  # as the event loop wants it
            handlers = web.Server(self._answer, access_log=None)
            accepting = asyncio.create_task(self._accept(listener, handlers))
            self._started(port=listener.getsockname()[1])
            await self._finished.wait()
            accepting.cancel()
            await asyncio.wait([accepting])
            await handlers.shutdown(_PATIENCE)

    async def _accept(self, listener: socket.socket, handlers: web.Server) -> None:
        # By hand: an asyncio.Server that is closed while it accepts leaves a broken transport behind (CPython 3.13).
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connecting:
            while True:
                connection, _ = await loop.sock_accept(listener)
                connecting.create_task(self._connect(connection, handlers))

    async def _connect(self, connection: socket.socket, handlers: web.Server) -> None:
        with contextlib.suppress(OSError):  # a TLS handshake that failed, or a client that has gone: no request
            await asyncio.get_running_loop().connect_accepted_socket(handlers, connection, ssl=self._tls)

    def _started(self, *, port: int | None = None, error: OSError | None = None) -> None:
        with self._changed:
            self._port, self._start_error = port, error
            self._changed.notify_all()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        peer = request.transport.get_extra_info("peername") if request.transport else None
        captured = Captured(
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            body=body,
            received_at=datetime.now(UTC),
            monotonic_at=monotonic(),
            peer_port=peer[1] if peer else 0,
        )
        reply = self._capture(captured)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    def _capture(self, captured: Captured) -> Reply:
        with self._changed:
            self._requests.append(captured)
            self._changed.notify_all()
            chosen = self._scripted.popleft() if self._scripted else self._decide(captured)
        return Reply(chosen) if isinstance(chosen, int) else chosen
