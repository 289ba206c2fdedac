"""Tables keep to the width of a real terminal, and show ids in full whatever that costs."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from tests.workers import ROOT

ID = "b55a0827-c925-4119-9f75-dd7cf0ffde24"
PRINTS = f"""
from taskyard.cli.kit.text_tables import print_table
columns = ("id", "task", "queue", "state", "attempts", "enqueued (UTC)", "wait", "runtime", "error")
row = ("{ID}", "reconciliation.reconcile", "reconciliation", "failed", 3, "2026-11-26 10:00:00", "1 s", "3 ms", "Error")
print_table(columns, [row])
"""


def printed_at(width: int) -> list[str]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    with subprocess.Popen([sys.executable, "-c", PRINTS], stdout=theirs, stderr=subprocess.DEVNULL, cwd=ROOT, env=env):
        os.close(theirs)
        output = b""
        try:
            while data := os.read(ours, 4096):
                output += data
        except OSError:  # the other side is closed
            pass
    os.close(ours)
    return output.decode().split("\r\n")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_id_is_cut_and_no_line_is_too_wide(width: int) -> None:
    lines = printed_at(width)
    assert max(map(len, lines)) <= width
    assert any(line.startswith(f"{ID}  ") for line in lines)
    assert "state" in lines[0]
    assert ("enqueued (UTC)" in lines[0]) is (width == 200)
