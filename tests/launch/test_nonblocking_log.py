"""A log that nobody reads holds up nothing: neither `up`, nor its processes, nor their end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from taskyard.launch.nonblocking_log import MAX_BUFFERED, NonBlockingLog
from tests.launch.up_process import LIMIT
from tests.waiting import wait_for
from tests.workers import ROOT

LINE = "x" * 1023 + "\n"
# Writes ten times what a pipe holds, and leaves a file when it is through.
TALKS = """
import pathlib, time
for _ in range(640): print('x' * 1023)
pathlib.Path('through').touch()
time.sleep(600)
"""


def read_all(file: int) -> str:
    with os.fdopen(file, "rb") as source:
        return source.read().decode()


def test_what_is_too_much_to_keep_is_dropped_and_counted() -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as out:
        log_stream = NonBlockingLog(out)
        log_stream.as_json = True
        kept = MAX_BUFFERED // len(LINE)
        for _ in range(kept + 7):
            log_stream.write(LINE)
        os.set_blocking(reads, False)
        got = bytearray()

        def takes() -> bool:
            while len(got) < kept * len(LINE):
                try:
                    got.extend(os.read(reads, 1_048_576))
                except BlockingIOError:
                    return False
            return True

        wait_for(takes, LIMIT, "the reader reads again")
        os.set_blocking(reads, True)
        log_stream.write("after\n")
        log_stream.finish(LIMIT)
    note, after = read_all(reads).splitlines()
    assert got.decode() == LINE * kept
    assert json.loads(note)["lines"] == 7
    assert after == "after"


def test_a_reader_that_is_gone_and_a_closed_file_are_no_errors() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as out:
        for log_stream in (NonBlockingLog(out), NonBlockingLog(None)):
            log_stream.write(LINE)
            log_stream.finish(LIMIT)
            assert not log_stream.isatty()


def test_processes_and_signals_do_not_wait_for_a_log_that_nobody_reads(tmp_path: Path) -> None:
    """A terminal that Ctrl-S has stopped, or a pager: here a pipe that is never read."""
    words = json.dumps({"programs": [{"name": "talker", "code": TALKS}]})
    up = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.small_up", words],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        wait_for((tmp_path / "through").exists, LIMIT, "the process has written more than the pipe holds")
        up.send_signal(signal.SIGTERM)
        assert up.wait(LIMIT) == 0
    finally:
        up.kill()
        up.communicate()
