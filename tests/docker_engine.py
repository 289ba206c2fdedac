"""The Docker engine of this machine, if there is one."""

import os
import shutil
import subprocess

import pytest

LIMIT = 300  # seconds


def require_engine() -> None:
    """Skip the test where no Docker engine answers; with REQUIRE_DOCKER=1 it fails."""
    program = shutil.which("docker")
    if program and subprocess.run([program, "info"], capture_output=True, check=False, timeout=60).returncode == 0:
        return
    reason = "no Docker engine answers `docker info`: start one, or see scripts/docker-engine"
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def docker(*words: str) -> str:
    """Run a command of Docker; return what it printed, errors too."""
    done = subprocess.run(
        ["docker", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stdout[-3000:]}"
    return done.stdout
