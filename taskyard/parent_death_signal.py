"""
Become another program that ends when its parent does: PARENT_PID SIGNAL PROGRAM [ARGUMENT ...].

:func:`tied_to_parent` says how to start it: by path with `python -I -S`, so that it starts in a few milliseconds and
imports nothing of ours. On Linux the kernel sends the signal when the thread that started us ends, even after SIGKILL;
elsewhere the program stays until somebody stops it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # Source: prctl(2)


def tied_to_parent(number: int = signal.SIGTERM) -> tuple[str, ...]:
    """Return what to put before a command, so that it gets this signal when the calling process ends, however."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(number)))


def main() -> None:
    """Tie this process to its parent, then replace it by the program."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the kernel knew of our wish
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
