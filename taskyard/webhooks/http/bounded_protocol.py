"""Bound the CPU that one answer can cost: count interim answers and bytes on the wire, which aiohttp does not."""

from functools import partial
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_INTERIM_ANSWERS: Final = 100  # 1xx before the answer; real receivers send one, or one each second
# Bytes of one answer that are parsed, chunk framing included: 64 KiB of a body may come in chunks of one byte each.
MAX_WIRE_BYTES: Final = 128 * 1024
_SLICE: Final = 16 * 1024  # bytes that are parsed before the counts are looked at again
_FIRST_FINAL_STATUS: Final = 200


class BoundedProtocol(ResponseHandler):
    """aiohttp's side of one connection, which gives up an answer that costs too much."""

    _interim_answers = 0
    _wire_bytes = 0
    _has_status = False
    _is_over = False

    def set_response_params(self, **options: Any) -> None:
        """Start the counts of a new request on this connection."""
        self._interim_answers = self._wire_bytes = 0
        self._has_status = False
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Parse what came, slice by slice, up to the limits."""
        for start in range(0, max(len(data), 1), _SLICE):
            if self._is_over:
                return
            piece = data[start : start + _SLICE]
            self._wire_bytes += len(piece)
            super().data_received(piece)
            if self._wire_bytes >= MAX_WIRE_BYTES:
                self._stop()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Queue an answer, unless it is one interim answer too many."""
        if data[0].code >= _FIRST_FINAL_STATUS:
            self._has_status = True
        else:
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                self._fail("too many interim answers")
                return
        super().feed_data(data, size)

    def resume_reading(self, *args: Any, **options: Any) -> None:
        """Read on, unless this answer has used up its bytes."""
        if not self._is_over:
            super().resume_reading(*args, **options)

    def _stop(self) -> None:
        """Parse nothing more: the reader takes what there is of the body, without a status the request has failed."""
        self.force_close()
        if not self._has_status:
            self._fail("Too many headers")  # aiohttp's words, which have an error code
            return
        self._is_over = True
        if self.transport is not None:
            self.transport.pause_reading()

    def _fail(self, reason: str) -> None:
        self._is_over = True
        transport = self.transport
        if transport is not None:
            transport.abort()
        self.set_exception(HttpProcessingError(message=reason))


class BoundedConnector(aiohttp.TCPConnector):
    """Opens connections that speak :class:`BoundedProtocol`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(BoundedProtocol, loop=self._loop))
