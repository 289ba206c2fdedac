"""Flower 2.2 beside our transport: true queue lengths, workers and tasks, behind a password."""

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from taskyard.parent_death_signal import tied_to_parent
from tests.broker.harness import BrokerHarness
from tests.waiting import wait_for
from tests.workers import ROOT

pytestmark = pytest.mark.timeout(300)  # many processes start
USER = "ann:secret"


class Flower:
    """A running Flower."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, user: str | None = USER) -> str:
        """The body of a page; `user` None sends no password."""
        headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
        request = urllib.request.Request(self._url + path, headers=headers)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return str(answer.read().decode())

    def lengths(self) -> dict[str, dict[str, Any]]:
        """What Flower says of the queues that workers take from."""
        return {queue.pop("name"): queue for queue in json.loads(self.get("/api/queues/length"))["active_queues"]}


@contextmanager
def running_flower(harness: BrokerHarness, folder: Path) -> Iterator[Flower]:
    """The documented command, on a free port."""
    log = folder / "flower.log"
    command = [sys.executable, "-m", "celery", "-A", "tests.broker.app", "flower", "--address=127.0.0.1", "--port=0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TEST_BROKER_URL": harness.url, "FLOWER_BASIC_AUTH": USER}
    with log.open("wb") as out:
        tied = tied_to_parent(SIGKILL)
        process = subprocess.Popen([*tied, *command], stdout=out, stderr=out, env=env, cwd=folder)
    try:
        urls = wait_for(lambda: re.findall(r"Visit me at (\S+)", log.read_text()), 60, "Flower is up", log.read_text)
        yield Flower(urls[0].rstrip("/"))
    finally:
        process.terminate()
        process.wait(20)


def test_flower_shows_true_lengths_workers_and_tasks(harness: BrokerHarness, tmp_path: Path) -> None:
    worker = harness.worker("threads", 1, minimal=False)
    harness.send("hold")
    harness.wait_started()
    harness.wait_listening()
    for _ in range(3):
        harness.send("record")
    for _ in range(2):
        harness.send("record", countdown=3600)
    with running_flower(harness, tmp_path) as flower:
        wait_for(lambda: len(flower.lengths()) == 2, 60, "Flower knows the worker's queues")
        assert flower.lengths() == {
            "celery": {"messages": 6, "messages_ready": 3, "messages_unacknowledged": 1, "consumers": 1},
            "dead-letter": {"messages": 0, "messages_ready": 0, "messages_unacknowledged": 0, "consumers": 1},
        }
        row = re.search(r'<tr id="celery">(.*?)</tr>', flower.get("/broker"), re.DOTALL)
        assert row is not None
        assert re.findall(r"<td[^>]*>\s*(?:<[^>]*>)?([^<]*)", row.group(1))[:5] == ["celery", "6", "1", "3", "1"]
        assert "worker@test" in json.loads(flower.get("/api/workers"))
        harness.release()
        wait_for(lambda: flower.lengths()["celery"]["messages"] == 2, 30, "the delayed ones are left")
        assert worker.is_running


def test_flower_asks_for_the_password(costly_harness: BrokerHarness, tmp_path: Path) -> None:
    with running_flower(costly_harness, tmp_path) as flower:
        for user in (None, "ann:guess"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                flower.get("/api/queues/length", user=user)
        assert "Broker" in flower.get("/broker")
