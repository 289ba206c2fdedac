"""The queues of an app are known to every command, whoever declares them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fixtures.celery_command import LIMIT, CeleryCommand
from tests.workers import ROOT

APP = """
from taskyard import Taskyard
app = Taskyard("shop")
app.autodiscover_tasks(["shop"])
"""
TASKS = """
from celery import shared_task
from taskyard import Payload, Queue, task

class Ship(Payload):
    order_id: int

@task("shop.ship", Ship, queue=Queue("shop-orders", profile="io"))
def ship(payload: Ship) -> None: ...

@shared_task(name="reports.monthly", queue="reports")
def monthly() -> None: ...
"""


def test_queues_of_autodiscovered_tasks_are_known_everywhere(celery: CeleryCommand, tmp_path: Path) -> None:
    """Before, only queues of modules that the app itself imports were; messages of the others waited unseen."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(APP)
    (package / "tasks.py").write_text(TASKS)
    env = {**os.environ, **celery.env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def shop(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "celery", "-A", "shop", *words, "--json"],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=LIMIT,
        )  # fmt: skip
        return json.loads(done.stdout)

    listed = {item["queue"] for item in shop("queues", "ls")["items"]}
    assert {"shop-orders", "reports"} <= listed
    assert shop("queues", "peek", "shop-orders") == {"items": []}
    found = {each["name"]: each for each in shop("doctor")["findings"]}
    for queue in ("shop-orders", "reports"):
        assert (found[f"queue {queue}"]["verdict"], "no consumer" in found[f"queue {queue}"]["note"]) == ("fault", True)
