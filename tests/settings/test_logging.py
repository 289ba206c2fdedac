"""A log on a terminal is read by people: in colours if wanted; it obeys nothing, and tells no values of variables."""

import subprocess
import sys
from io import StringIO

import pytest

from taskyard.launch.log_prefixes import LogPrefixer
from taskyard.logging import wants_colour
from tests.workers import ROOT


class Terminal(StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


SAYS = """
import logging, structlog
from taskyard.logging import configure_logging
from taskyard.settings.loading import load_settings
configure_logging(load_settings({"LOG_FORMAT": "console"}))
hostile = chr(27) + "[2J" + chr(0x9b) + "2J"
def fail():
    password = "hunter2"
    raise ValueError("because " + hostile)
logging.getLogger("a").warning("said %s", hostile)
structlog.get_logger("b").warning("event", what=hostile, more=[hostile])
try:
    fail()
except ValueError:
    logging.getLogger("c").exception("failed")
    structlog.get_logger("d").exception("failed")
"""


def test_a_terminal_obeys_no_log() -> None:
    """In a process of its own: the logging of this one is pytest's."""
    ended = subprocess.run([sys.executable, "-c", SAYS], cwd=ROOT, capture_output=True, text=True, check=True)

    assert all(character.isprintable() or character in "\n\t" for character in ended.stderr), ended.stderr
    assert ended.stderr.count("ValueError: because ?[2J?2J") == 2
    assert "said ?[2J?2J" in ended.stderr
    assert "hunter2" not in ended.stderr.replace('password = "hunter2"', "")


def test_a_terminal_obeys_no_process_of_up() -> None:
    out = StringIO()
    printer = LogPrefixer(["io-1"], out, as_json=False, in_colour=False)
    printer.feed("io-1", b"said \x1b[2J \xc2\x9b2J \xff\n")
    assert out.getvalue() == "io-1 | said ?[2J ?2J \ufffd\n"


@pytest.mark.parametrize(
    ("stderr", "environment", "wanted"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": ""}, True),  # empty counts as not set
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
        (StringIO, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, stderr: type[StringIO], environment: dict[str, str], *, wanted: bool
) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stderr())
    assert wants_colour() is wanted
