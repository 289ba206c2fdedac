"""Run `celery -A tests.history.records_app ...` as an operator does: a process of its own, on a test's own servers."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.workers import ROOT

APP = "tests.history.records_app"
LIMIT = 180  # seconds; a `celery` call takes 2 s of CPU, and the machine may be busy


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class CeleryCommand:
    """The command line with an environment."""

    env: Mapping[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "celery", "-A", APP, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.env},
            cwd=ROOT,
        )

    def __call__(self, *arguments: str) -> CommandResult:
        """Run a command to its end."""
        return ended(self.start(*arguments))


def ended(process: subprocess.Popen[str]) -> CommandResult:
    """Wait for a command."""
    out, err = process.communicate(timeout=LIMIT)
    return CommandResult(process.returncode, out, err)
