"""A TCP proxy on loopback whose cable a test can cut."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """
    Forwards each connection to `target_port` until it is cut.

    `cut(silent=False)` closes all connections and refuses new ones; `cut(silent=True)` keeps them open and swallows
    every byte, as a network that drops packets does. `heal()` ends either. An answer of the server that holds the bytes
    `withhold` never arrives: the server has acted, and its client does not know.
    """

    def __init__(self, target_port: int, *, withhold: bytes | None = None) -> None:
        self._target = target_port
        self._withhold = withhold
        self.has_withheld = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.RLock()
        self._is_cut = self._is_silent = self._ends = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """The proxied server's database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, *, silent: bool = False) -> None:
        """Stop forwarding."""
        with self._lock:
            self._is_cut, self._is_silent = not silent, silent
            if not silent:
                self._drop_all()

    def heal(self) -> None:
        """Forward again; connections of a silent cut are closed, for bytes of theirs are lost."""
        with self._lock:
            self._is_cut = self._is_silent = False
            self._drop_all()

    def move_to(self, port: int) -> None:
        """Send new connections there, as a name does that means another server now; the old ones stay."""
        self._target = port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends = True
        self._thread.join(5)
        with self._lock:
            self._drop_all()
            self._selector.close()
            self._listener.close()

    def _run(self) -> None:
        while not self._ends:
            for key, _ in self._selector.select(timeout=0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket):
                        self._forward(key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._is_cut:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            one.settimeout(5)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        if source not in self._peers:  # closed by an earlier event of this turn
            return
        try:
            data = source.recv(65536)
            if self._withhold is not None and source not in self._clients and self._withhold in data:
                self.has_withheld.set()
            elif data and not self._is_silent:
                self._peers[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source)

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._peers[one]):
            del self._peers[end]
            self._clients.discard(end)
            self._selector.unregister(end)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _drop_all(self) -> None:
        while self._peers:
            self._drop(next(iter(self._peers)))
