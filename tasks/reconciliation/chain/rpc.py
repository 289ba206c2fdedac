"""JSON-RPC 2.0 over HTTP: one kept connection per thread, bounded in time, size and tries."""

import base64
import http.client
import itertools
import json
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.reconciliation.clients import ChainUnavailableError

MAX_BODY = 32 * 1024 * 1024  # bytes of one answer
CHUNK = 65_536
PAUSE = 0.2  # seconds before the second try; doubles with each
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})


class NodeUnreachableError(ChainUnavailableError):
    """No usable answer: connection, time-out, HTTP status, size or form. Another try may help."""


class NodeError(ChainUnavailableError):
    """The node answered with an error of its own."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Timeout and number of tries of one call."""

    timeout: timedelta = timedelta(seconds=10)  # wall clock of one try, body included
    tries: int = 3


class JsonRpc:
    """
    Calls one node. Redirects are not followed and the environment's proxies are ignored.

    The URL may hold an access key, so no error names more of it than the host.
    """

    def __init__(self, url: str, limits: CallLimits) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("not an http or https URL")
        self._parts, self._limits = parts, limits
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._thread = threading.local()
        self._ids = itertools.count(1)

    def call(self, method: str, params: Any) -> Any:
        """
        Return the result of a method that only reads, so that it can be called again.

        Raises:
            NodeUnreachableError: No usable answer in all tries.
            NodeError: The node refused; it is asked once.
        """
        for number in range(1, self._limits.tries + 1):
            try:
                return self._call_once(method, params)
            except NodeUnreachableError:
                if number == self._limits.tries:
                    raise
                time.sleep(PAUSE * 2 ** (number - 1))  # the node gets time to recover
        raise AssertionError("there is at least one try")

    def _call_once(self, method: str, params: Any) -> Any:
        call_id = next(self._ids)
        given = {} if params is None else {"params": params}  # a method without any refuses even an empty list
        body = json.dumps({"jsonrpc": "2.0", "id": call_id, "method": method, **given}).encode()
        try:
            answer = json.loads(self._post(body))
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            raise NodeUnreachableError(
                f"{method} at {self._parts.hostname}: {str(error) or type(error).__name__}"
            ) from error
        except ValueError as error:
            raise NodeUnreachableError(f"{method} at {self._parts.hostname}: the answer is not JSON") from error
        except NodeUnreachableError:
            self._forget()
            raise
        if not isinstance(answer, dict) or answer.get("id") != call_id:
            raise NodeUnreachableError(f"{method} at {self._parts.hostname}: the answer belongs to no call of ours")
        if answer.get("error") is not None:
            raise NodeError(f"{method} at {self._parts.hostname}: {str(answer['error'])[:500]}")
        return answer.get("result")

    def _post(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self._limits.timeout.total_seconds()
        connection = self._connection()
        connection.timeout = self._limits.timeout.total_seconds()
        if connection.sock is not None:
            connection.sock.settimeout(self._limits.timeout.total_seconds())
        connection.request("POST", self._path, body, self._headers)
        socket = connection.sock  # the response may take it over
        response = connection.getresponse()
        received = bytearray()
        while chunk := response.read1(CHUNK):
            received += chunk
            if len(received) > MAX_BODY:
                raise NodeUnreachableError(f"{self._parts.hostname} answered with more than {MAX_BODY} bytes")
            if (left := deadline - time.monotonic()) <= 0:
                raise NodeUnreachableError(f"{self._parts.hostname} took longer than {self._limits.timeout}")
            socket.settimeout(left)
        if response.status != http.client.OK:
            fault = NodeUnreachableError if response.status in TRY_AGAIN else NodeError
            raise fault(f"{self._parts.hostname} answered HTTP {response.status}")
        return bytes(received)

    def _connection(self) -> http.client.HTTPConnection:
        known: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if known is not None:
            return known
        host, port = self._parts.hostname or "", self._parts.port
        made = (
            http.client.HTTPSConnection(host, port, context=ssl.create_default_context())
            if self._parts.scheme == "https"
            else http.client.HTTPConnection(host, port)
        )
        self._thread.connection = made
        return made

    def _forget(self) -> None:
        """Close this thread's connection: after an error its state is not known."""
        self._connection().close()
        del self._thread.connection
