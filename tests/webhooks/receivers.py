"""Receivers to deliver to: a well-behaved one that can be scripted, and hostile ones on raw sockets."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Self

from scripts.standins.receiver import Captured, Receiver, Reply

__all__ = [
    "Captured",
    "Hostile",
    "Receiver",
    "Reply",
    "Visit",
    "bomb_of_gzip",
    "breaks_a_chunk",
    "closes_at_once",
    "closes_in_the_headers",
    "closes_kept_connections",
    "drips_body",
    "drips_headers",
    "floods_with_continue",
    "never_answers",
    "sends",
    "sends_endless_body",
    "sends_tiny_chunks",
]

type Behaviour = Callable[["Visit"], None]

STEP = 0.05  # seconds between the drops of a drip


class Visit:
    """One connection to a hostile receiver."""

    def __init__(self, connection: socket.socket, ended: Event, handled: Callable[[], None]) -> None:
        self._connection = connection
        self._ended = ended
        self._handled = handled  # told of each request that came whole

    def read_request(self) -> bytes:
        """Return what came up to the end of the headers; empty when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self._connection.recv(65536)
            if not chunk:
                return b""
            data += chunk
        self._handled()
        return data

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._connection.sendall(data)

    def drops(self) -> Iterator[int]:
        """Count up, with a short pause before each number, until the receiver is stopped."""
        count = 0
        while not self._ended.wait(STEP):
            yield count
            count += 1

    def wait_for_the_end(self) -> None:
        """Hold the connection open until the receiver is stopped."""
        self._ended.wait()


class Hostile:
    """A raw TCP (or TLS) server on loopback that does one nasty thing to each connection, each in a thread."""

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._behaviour = behaviour
        self._tls = tls
        self.ended = Event()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.requests = 0
        self._changed = Condition()
        self._open: list[socket.socket] = []
        self._threads = [Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        """The address to deliver to."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/hook"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.ended.set()
        for waiting in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts or reads
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def wait_for_connections(self, count: int, timeout: float = 10.0) -> None:
        """
        Wait (seconds) until `count` connections were taken in all.

        Raises:
            TimeoutError: Fewer came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.connections >= count, timeout):
                raise TimeoutError(f"{self.connections} of {count} connections came within {timeout:g} s")

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._open.append(connection)
                self._changed.notify_all()
            thread = Thread(target=self._treat, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _count_request(self) -> None:
        with self._changed:
            self.requests += 1

    def _treat(self, connection: socket.socket) -> None:
        # The client is right to hang up in the middle of all this.
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            secured = self._tls.wrap_socket(connection, server_side=True) if self._tls else connection
            with secured:
                self._behaviour(Visit(secured, self.ended, self._count_request))


def sends(data: bytes) -> Behaviour:
    """Answer each connection's first request with these bytes, then close."""

    def behave(visit: Visit) -> None:
        visit.read_request()
        visit.send(data)

    return behave


def closes_at_once(_visit: Visit) -> None:
    """Close without a word."""


def never_answers(visit: Visit) -> None:
    """Take the connection and say nothing."""
    visit.wait_for_the_end()


def closes_in_the_headers(visit: Visit) -> None:
    """Hang up in the middle of the answer's headers."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Ty")


def drips_headers(visit: Visit) -> None:
    """Send one header after another, without end: each read succeeds, so a read timeout never fires."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\n")
    for number in visit.drops():
        visit.send(b"X-%d: y\r\n" % (number % 10))


def drips_body(status: bytes) -> Behaviour:
    """Answer with this status line's rest and a body that comes one byte at a time."""

    def behave(visit: Visit) -> None:
        visit.read_request()
        visit.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 100000\r\n\r\n")
        for _ in visit.drops():
            visit.send(b"z")

    return behave


def sends_endless_body(visit: Visit) -> None:
    """Answer 200 with 100 MB, as fast as they are taken."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
    block = b"x" * 65536
    for _ in range(1600):
        visit.send(block)


def bomb_of_gzip(data: bytes) -> Behaviour:
    """Answer 200 with gzip data that nobody asked for."""
    return sends(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(data)
        + data
    )


def floods_with_continue(visit: Visit) -> None:
    """Answer with `100 Continue`, as fast as they are taken, until the client hangs up."""
    visit.read_request()
    block = b"HTTP/1.1 100 Continue\r\n\r\n" * 2000
    while True:
        visit.send(block)


def sends_tiny_chunks(visit: Visit) -> None:
    """Answer 200 with a body of endless chunks of one byte."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    block = b"1\r\nz\r\n" * 10_000
    while True:
        visit.send(block)


def breaks_a_chunk(visit: Visit) -> None:
    """Answer 200 with one good chunk, and then something that is none."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    next(visit.drops())
    visit.send(b"zzz\r\n")
    visit.wait_for_the_end()


def closes_kept_connections(visit: Visit) -> None:
    """Answer one request and promise to keep the connection, then handle the next request and hang up instead."""
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    visit.read_request()
