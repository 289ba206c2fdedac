"""mypy accepts the good calls of a typed task and rejects the bad ones, each on its line."""

import re
import subprocess
import sys
from pathlib import Path

CALLS = Path(__file__).with_name("calls.py")
CONFIG = CALLS.with_name("mypy.ini")
ROOT = CALLS.parents[2]
CACHE = ROOT / ".mypy_cache" / "calls"  # its own: another configuration's cache would be thrown away, and ours by it


def test_mypy_reports_exactly_the_bad_calls() -> None:
    expected = {
        (number, found[1])
        for number, line in enumerate(CALLS.read_text().splitlines(), start=1)
        if (found := re.search(r"# wrong: ([a-z-]+)$", line))
    }
    words = [sys.executable, "-m", "mypy", "--config-file", str(CONFIG), "--cache-dir", str(CACHE), str(CALLS)]
    checked = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    reported = re.findall(r"calls\.py:(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, flags=re.MULTILINE)
    assert {(int(number), code) for number, code in reported} == expected, checked.stdout + checked.stderr
    assert len(expected) == 16
