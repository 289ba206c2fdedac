"""A queue of an app's own: taken from, shown, and refused when it cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskyard.settings.queues import DEFAULT, QUEUES, Queue, declare
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, ROOT, Worker

APP = "tests.tasks.own_queue"


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        (Queue("", "io"), "letters"),
        (Queue("a b", "io"), "letters"),
        (Queue("-Q", "io"), "not these first"),
        (Queue("q" * 129, "io"), "1-128"),
        (Queue("shop", "threads"), "use io or prefork"),  # type: ignore[arg-type]  # that is the point
        (Queue("celery", "prefork"), "declared already"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(queue: Queue, words: str) -> None:
    before = list(QUEUES)
    with pytest.raises(ValueError, match=words):
        declare(queue)
    assert before == QUEUES


def test_what_is_declared_already_stays() -> None:
    before = list(QUEUES)
    declare(DEFAULT)
    assert before == QUEUES


def test_workers_take_from_a_queue_of_the_apps_own(valkey: Server, tmp_path: Path) -> None:
    env = {"REDIS_URL": valkey.url, "DATABASE_URL": f"sqlite:///{tmp_path / 'own.db'}", "AUDIT_ENABLED": "false"}

    def run(*command: str) -> bytes:
        everything = {**os.environ, **env}
        return subprocess.run(
            [sys.executable, *command], env=everything, cwd=ROOT, capture_output=True, check=True
        ).stdout

    with Worker(APP, tmp_path, arguments=MINIMAL, env=env) as worker:
        run("-c", f"import {APP} as a; a.ship.delay(note={str(tmp_path / 'note')!r})")
        wait_for((tmp_path / "note").exists, 60, "the task has run", worker.tail)
        listed = json.loads(run("-m", "celery", "-A", APP, "queues", "ls", "--json"))["items"]
    assert {row["queue"]: row["consumers"] for row in listed}["shop-orders"] == 1
    profiles = run("-c", f"import {APP}; from taskyard.settings.profiles import IO; print(*IO.queues)")
    assert b"shop-orders" in profiles.split()
