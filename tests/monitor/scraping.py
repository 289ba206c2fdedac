"""A deployment whose processes answer scrapes, for tests."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.workers import MINIMAL, ROOT, Worker

APP = "tests.history.records_app"


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def fetch(port: int, path: str, token: str | None = None) -> tuple[int, str]:
    """GET; status 0: nobody listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - as above
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The values of an exposition by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(port: int, name: str, **labels: str) -> float:
    """One value as it is now; 0 when it is not there."""
    return samples(fetch(port, "/metrics")[1]).get((name, tuple(sorted(labels.items()))), 0.0)


def worker(folder: Path, env: Mapping[str, str], name: str = "worker", *arguments: str) -> Worker:
    """A worker of the records app on all queues."""
    return Worker(APP, folder, name=name, arguments=(*MINIMAL, *arguments), env=env)


@contextmanager
def beating(folder: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A beat process."""
    command = [sys.executable, "-m", "celery", "-A", APP, "beat"]
    with (folder / "beat.log").open("wb") as log:
        everything = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        process = subprocess.Popen(command, env=everything, stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
