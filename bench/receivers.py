"""
The outside world of the webhook benchmarks: receivers in a process of their own that answer 200, at once or later.

They keep nothing but times, so that they take as little as possible of the machine that is measured.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import cast

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
STARTS = 30  # seconds a receiver process may take to listen


class Receivers:
    """A handle on the receivers' process; each question is answered at once."""

    def __init__(self, pipe: Connection, ports: list[int]) -> None:
        self._pipe = pipe
        self.urls = [f"http://127.0.0.1:{port}/hook" for port in ports]

    @property
    def count(self) -> int:
        """How many requests arrived since the last `take`."""
        self._pipe.send("count")
        return int(self._pipe.recv())

    def take(self) -> list[float]:
        """Return the latencies (seconds) since the last call, each from the body's timestamp to its arrival."""
        self._pipe.send("take")
        return list(self._pipe.recv())


@contextmanager
def receivers(number: int, thinking: float = 0) -> Iterator[Receivers]:
    """Start so many receivers on loopback that answer after `thinking` seconds; they end with the block."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, number, thinking), daemon=True)
    process.start()
    try:
        if not ours.poll(STARTS):
            sys.exit("the receivers did not start")
        yield Receivers(ours, ours.recv())
    finally:
        process.terminate()
        process.join()


class _Receiver(asyncio.Protocol):
    """One kept connection: requests with a `Content-Length`, one after the other."""

    def __init__(self, latencies: list[float], thinking: float) -> None:
        self._latencies, self._thinking = latencies, thinking
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = self._data[:end].lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            whole = end + 4 + int(length)
            if len(self._data) < whole:
                return
            self._note(self._data[end + 4 : whole])
            self._data = self._data[whole:]
            if self._thinking:
                asyncio.get_running_loop().call_later(self._thinking, self._transport.write, ANSWER)
            else:
                self._transport.write(ANSWER)

    def _note(self, body: bytes) -> None:
        emitted = body.split(b'"timestamp":"', 1)[1].split(b'"', 1)[0].decode()
        since = datetime.fromisoformat(emitted)
        self._latencies.append((datetime.now(since.tzinfo) - since).total_seconds())


def _serve(pipe: Connection, number: int, thinking: float) -> None:
    asyncio.run(_listen(pipe, number, thinking))


async def _listen(pipe: Connection, number: int, thinking: float) -> None:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    servers = [
        await loop.create_server(lambda: _Receiver(latencies, thinking), "127.0.0.1", 0, backlog=1000)
        for _ in range(number)
    ]

    def answer() -> None:
        if pipe.recv() == "count":
            pipe.send(len(latencies))
        else:
            pipe.send(latencies)
            latencies.clear()

    loop.add_reader(pipe.fileno(), answer)
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])
    await asyncio.Event().wait()
