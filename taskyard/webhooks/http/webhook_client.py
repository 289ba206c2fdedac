"""An HTTP client that posts webhooks from any thread of a worker."""

import asyncio
import concurrent.futures
import os
import weakref
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from threading import Lock, Thread
from typing import Any, Final, Protocol

from taskyard.webhooks.http.response import Answer, ErrorCode, Timeouts
from taskyard.webhooks.http.session import ClientOptions, GuardedSession

__all__ = ["AiohttpWebhookClient", "ClientClosedError", "ClientOptions", "WebhookClient"]

_DEFAULT_TIMEOUTS: Final = Timeouts()
# The loop enforces the deadline; this only frees the caller if the loop is stuck.
_GRACE: Final = timedelta(seconds=5)
_STOP_TIMEOUT: Final = 10.0  # seconds


class ClientClosedError(RuntimeError):
    """The client was closed before or during the request; whether the receiver got it is unknown."""


class WebhookClient(Protocol):
    """What a handler needs of the network."""

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, timeouts: Timeouts = _DEFAULT_TIMEOUTS
    ) -> Answer:
        """Send one POST and return the answer, or why there is none."""
        ...


class AiohttpWebhookClient:
    """
    Posts webhooks through one aiohttp session that runs on a background event loop, per process.

    Safe to share by all threads and to make before a fork: the loop starts with the first request, and a forked child
    starts its own. Follows no redirect, uses no proxy or cookie, and connects to no address that is not public.
    """

    def __init__(self, options: ClientOptions | None = None) -> None:
        self._options = options or ClientOptions()
        self._lock = Lock()
        self._background: _LoopThread | None = None
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, GuardedSession] = (
            weakref.WeakKeyDictionary()
        )
        self._is_closed = False
        self._inherited: list[object] = []
        os.register_at_fork(after_in_child=partial(_start_afresh, weakref.ref(self)))

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, timeouts: Timeouts = _DEFAULT_TIMEOUTS
    ) -> Answer:
        """
        Send one POST from a thread that may block, within ``timeouts.total``.

        The headers are sent as given, beside User-Agent, Accept and Content-Length; give a Content-Type.

        Raises:
            ClientClosedError: The client is closed.
        """
        future = self._submit(partial(self.apost, url, headers, body, timeouts=timeouts))
        try:
            return future.result((timeouts.total + _GRACE).total_seconds())
        except concurrent.futures.CancelledError as error:
            raise ClientClosedError("the webhook client was closed during the request") from error
        except TimeoutError:
            return Answer.failed(ErrorCode.TIMEOUT_TOTAL)
        finally:
            future.cancel()  # also when a soft time limit interrupts the wait

    async def apost(
        self, url: str, headers: Mapping[str, str], body: bytes, *, timeouts: Timeouts = _DEFAULT_TIMEOUTS
    ) -> Answer:
        """
        Send one POST from a coroutine on any event loop; each loop has its own session (see `aclose`).

        Raises:
            ClientClosedError: The client is closed.
        """
        return await self._session().post(url, headers, body, timeouts)

    def close(self) -> None:
        """Stop the background loop; requests under way end with `ClientClosedError`. Idempotent."""
        with self._lock:
            self._is_closed = True
            background, self._background = self._background, None
        if background is not None:
            background.stop(self.aclose)

    async def aclose(self) -> None:
        """Close the session of the running loop, as whoever used `apost` there must before the loop ends."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def _submit(self, start: partial[Coroutine[Any, Any, Answer]]) -> concurrent.futures.Future[Answer]:
        with self._lock:
            if self._is_closed:
                raise ClientClosedError("the webhook client is closed")
            if self._background is None:
                self._background = _LoopThread()
            return asyncio.run_coroutine_threadsafe(start(), self._background.loop)

    def _session(self) -> GuardedSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            if self._is_closed:
                raise ClientClosedError("the webhook client is closed")
            session = self._sessions[loop] = GuardedSession(self._options)
        return session


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, name="webhook-client", daemon=True)
        self._thread.start()

    def stop(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all_and(last), self.loop).result(_STOP_TIMEOUT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_TIMEOUT)
        self.loop.close()


async def _cancel_all_and(last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last()


def _start_afresh(reference: "weakref.ref[AiohttpWebhookClient]") -> None:
    client = reference()
    if client is None:
        return
    # Kept, never closed or collected: the parent's sockets share its selector, and closing one here would make the
    # parent deaf to it.
    client._inherited += [client._background, client._sessions]  # noqa: SLF001  this module's own class
    client._background = None  # noqa: SLF001
    client._sessions = weakref.WeakKeyDictionary()  # noqa: SLF001
    client._lock = Lock()  # noqa: SLF001  a thread that is not here may have held it
