"""
Run a program that ends when its parent does: `parent_death_signal.py PARENT_PID SIGNAL PROGRAM [ARGUMENT ...]`.

Run by path with `python -I -S`, so that it starts in a few milliseconds and imports nothing of ours. On Linux the
kernel sends the signal when the thread that started us ends, even after SIGKILL; elsewhere the program stays until
somebody stops it.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # Source: prctl(2)


def main() -> None:
    """Tie this process to its parent, then replace it by the program."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before prctl took effect
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
