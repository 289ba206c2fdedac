"""Processes whose clock is off, by libfaketime."""

import os
from pathlib import Path

import pytest

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def need_faketime() -> str:
    """Return the library to preload; without it the test is skipped on a laptop, and fails in CI."""
    if not FAKETIME.exists():
        reason = "libfaketime is not installed (apt-get install faketime)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return str(FAKETIME)


def off_by(offset: str) -> dict[str, str]:
    """Return the environment of a process whose clock is off, such as by "+2h"."""
    return {"LD_PRELOAD": need_faketime(), "FAKETIME": offset}
