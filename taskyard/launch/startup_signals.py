"""Termination signals that arrive while `up` prepares, before the supervisor handles them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedDuringStartup(BaseException):
    """`up` was told to stop before it started a process."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


def termination_signals() -> list[signal.Signals]:
    """Return the signals to handle; under nohup SIGHUP stays ignored."""
    return [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """
    Raise `StoppedDuringStartup` at the first signal, until another handler is set; a second one kills.

    Afterwards they are ignored: the process is exiting with its own exit code.
    """
    numbers = termination_signals()
    for number in numbers:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def _raise(number: int, _frame: FrameType | None) -> None:
    for each in termination_signals():
        signal.signal(each, signal.SIG_DFL)
    raise StoppedDuringStartup(signal.Signals(number))
