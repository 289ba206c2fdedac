"""Compare two runs, and judge what differs by the table of `docs/broker.md`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from scripts.conformance.suites import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scripts.conformance.suites import Outcomes

TABLE = ROOT / "docs" / "broker.md"
HEADING = "## Where it differs from kombu's transport"


class Reason(NamedTuple):
    """One row of the table: the tests that it excuses, and why."""

    pattern: str  # the end of a node id without its parameters; * stands for anything
    why: str

    def covers(self, test: str) -> bool:
        """Whether it excuses this test."""
        return fnmatchcase(re.sub(r"\[.*\]$", "", test), f"*{self.pattern}")


def known_reasons(text: str) -> list[Reason]:
    r"""
    Read the table below `HEADING`: a cell with tests in backquotes, and a cell with the reason.

    >>> known_reasons(f"{HEADING}\n\n| tests | why |\n|---|---|\n| `a::b`, `c` | other names |\n\n## Next")
    [Reason(pattern='a::b', why='other names'), Reason(pattern='c', why='other names')]
    """
    section = text.partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
    return [Reason(name, row[1].strip()) for row in rows for name in re.findall(r"`([^`]+)`", row[0])]


def worse_on_ours(ours: Outcomes, kombus: Outcomes) -> list[str]:
    """Return the tests that kombu's transport passes and ours does not."""
    return [test for test, outcome in kombus.items() if outcome == "passed" and ours.get(test) != "passed"]


def unexplained(tests: Iterable[str], reasons: Iterable[Reason]) -> list[str]:
    """Return the tests that no reason covers."""
    listed = list(reasons)
    return [test for test in tests if not any(reason.covers(test) for reason in listed)]


def unused(tests: Iterable[str], reasons: Iterable[Reason], run: Iterable[str]) -> list[Reason]:
    """Return the reasons whose tests ran and no longer fail: the list stays as short as it can be."""
    failed, ran = list(tests), list(run)
    return [
        reason for reason in reasons if any(map(reason.covers, ran)) and not any(reason.covers(test) for test in failed)
    ]
