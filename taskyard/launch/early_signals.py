"""The signals that end `up`, and what they do before the keeper listens to them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EndedEarly(BaseException):
    """`up` was told to end while it prepared itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


def heeded() -> list[signal.Signals]:
    """The signals to listen to: under nohup, the end of the terminal is none of them."""
    return [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def ending_early() -> Iterator[None]:
    """
    Let the first signal raise `EndedEarly`, until somebody else handles them; a second one kills.

    Afterwards they are ignored: the process ends anyway, and has its exit code.
    """
    numbers = heeded()
    for number in numbers:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> None:
    for each in heeded():
        signal.signal(each, signal.SIG_DFL)
    raise EndedEarly(signal.Signals(number))
