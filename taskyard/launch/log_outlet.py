"""Where `up` writes: a thread hands it on, so that nobody waits for a terminal or a pager that does not read."""

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

MOST_WAITING = 4_194_304  # bytes that wait for the reader
LAST_WORDS = 2.0  # seconds that the reader has at the end


class Outlet(io.TextIOBase):
    """
    Takes the place of standard error.

    A terminal that Ctrl-S has stopped takes nothing: a write would hang, `up` with it, deaf to signals, and all
    processes that wait for it to read what they write. What is too much to keep is dropped and counted.
    """

    def __init__(self, out: TextIO | None) -> None:
        """`out` None: standard error is closed."""
        self.as_json = False  # how to say that lines were dropped
        self._file = out.fileno() if out is not None else None
        self._is_terminal = out is not None and out.isatty()
        self._texts: deque[bytes] = deque()
        self._waiting = 0  # bytes, those included that the thread is writing
        self._dropped = 0  # lines
        self._is_over = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._turn, name="outlet", daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """Take a text, and return at once."""
        data = text.encode(errors="backslashreplace")
        with self._change:
            if self._waiting + len(data) > MOST_WAITING:
                self._dropped += data.count(b"\n")
            else:
                self._keep(self._note_dropped() + data)
        return len(text)

    def finish(self, seconds: float) -> None:
        """Give the reader so long for what is left."""
        with self._change:
            self._keep(self._note_dropped())
            self._is_over = True
            self._change.notify()
        self._thread.join(seconds)

    def _keep(self, data: bytes) -> None:
        if data:
            self._texts.append(data)
            self._waiting += len(data)
            self._change.notify()

    def _note_dropped(self) -> bytes:
        count, self._dropped = self._dropped, 0
        if not count:
            return b""
        if self.as_json:
            return json.dumps({"event": "up.log_dropped", "lines": count, "level": "warning"}).encode() + b"\n"
        return b"up.log_dropped: nobody read the log, and %d lines of it were dropped here\n" % count

    def _turn(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._texts or self._is_over)
                if not self._texts:
                    return
                data = b"".join(self._texts)
                self._texts.clear()
            if self._file is not None:
                _write_all(self._file, data)
            with self._change:
                self._waiting -= len(data)


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(file, left) :]
        except BlockingIOError:  # somebody shares it with us and has set it so
            select.select([], [file], [])
        except OSError:  # the terminal is gone; the processes must still be ended in order
            return


@contextmanager
def patient_stderr() -> Iterator[Outlet]:
    """Put an outlet in the place of standard error."""
    before = sys.stderr
    outlet = Outlet(before)
    sys.stderr = cast("TextIO", outlet)
    try:
        yield outlet
    finally:
        sys.stderr = before
        outlet.finish(LAST_WORDS)
