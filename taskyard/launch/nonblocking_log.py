"""Standard error of `up`, written by a thread: a stopped terminal or pager must not block processes."""

import io
import json
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

MAX_BUFFERED = 4_194_304  # bytes waiting for the reader
FLUSH_TIMEOUT = 2.0  # seconds to write what is left at exit


class NonBlockingLog(io.TextIOBase):
    """
    Replaces standard error.

    A terminal stopped with Ctrl-S blocks writers: `up` would hang and ignore signals, and so would all processes whose
    output it reads. Lines beyond the buffer are dropped and counted.
    """

    def __init__(self, out: TextIO | None) -> None:
        """`out` None: standard error is closed."""
        self.as_json = False  # format of the note about dropped lines
        self._file = out.fileno() if out is not None else None
        self._is_terminal = out is not None and out.isatty()
        self._queued: deque[bytes] = deque()
        self._waiting = 0  # bytes, including those being written
        self._dropped = 0  # lines
        self._is_over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._write_queued, name="log writer", daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """Queue a text and return at once."""
        data = text.encode(errors="backslashreplace")
        with self._change:
            if self._waiting + len(data) > MAX_BUFFERED:
                self._dropped += data.count(b"\n")
            else:
                self._keep(self._note_dropped() + data)
        return len(text)

    def finish(self, seconds: float) -> None:
        """Write what is left, for at most so many seconds."""
        with self._change:
            self._keep(self._note_dropped())
            self._is_over = True
            self._change.notify()
        self._thread.join(seconds)

    def _keep(self, data: bytes) -> None:
        if data:
            self._queued.append(data)
            self._waiting += len(data)
            self._change.notify()

    def _note_dropped(self) -> bytes:
        count, self._dropped = self._dropped, 0
        if not count:
            return b""
        if self.as_json:
            return json.dumps({"event": "up.log_dropped", "lines": count, "level": "warning"}).encode() + b"\n"
        return b"up.log_dropped: the log was not read; %d lines were dropped here\n" % count

    def _write_queued(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queued or self._is_over)
                if not self._queued:
                    return
                data = b"".join(self._queued)
                self._queued.clear()
            if self._file is not None:
                _write_all(self._file, data)
            with self._change:
                self._waiting -= len(data)


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(file, left) :]
        except BlockingIOError:  # another process has set the shared file to non-blocking
            select.select([], [file], [])
        except OSError:  # the terminal is gone; processes must still be stopped in order
            return


@contextmanager
def nonblocking_stderr() -> Iterator[NonBlockingLog]:
    """Replace standard error with a :class:`NonBlockingLog`."""
    before = sys.stderr
    log_stream = NonBlockingLog(before)
    sys.stderr = cast("TextIO", log_stream)
    try:
        yield log_stream
    finally:
        sys.stderr = before
        log_stream.finish(FLUSH_TIMEOUT)
