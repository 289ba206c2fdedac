"""A domain that is made by the recipe of CONTRIBUTING.md, in a folder of somebody else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskyard.settings.loading import setting_prefixes
from tests.distribution.toy import write_toy
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, ROOT, Worker

type Celery = Callable[..., str]
FAULTS = (0, 1)  # exit codes of `doctor`
OF_THE_APPLICATION = {"markets", "predictions", "backup_runs", "recon_reports", "admin_actions", "users"}


@pytest.fixture
def variables(valkey: Server, tmp_path: Path) -> dict[str, str]:
    write_toy(tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(setting_prefixes())}
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    return {**kept, "PYTHONPATH": path, "DATABASE_URL": f"sqlite:///{tmp_path / 'toy.db'}", "REDIS_URL": valkey.url}


@pytest.fixture
def celery(variables: dict[str, str], tmp_path: Path) -> Celery:
    """`celery -A shop.app ...` in the folder; returns what it printed."""

    def run(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        command = [sys.executable, "-m", "celery", "-A", "shop.app", *words]
        ended = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode in codes, (words, ended.stdout, ended.stderr)
        return ended.stdout

    return run


def test_its_task_command_schedule_table_metric_and_check_work(
    celery: Celery, variables: dict[str, str], tmp_path: Path
) -> None:
    assert "parcels: upgraded from no tables to 0001" in celery("db", "upgrade")
    with Worker("shop.app", tmp_path, arguments=("-B", *MINIMAL), env=variables) as worker:
        enqueue = "import shop.app; from shop.parcels.tasks import pack; pack.delay(label='by hand')"
        subprocess.run([sys.executable, "-c", enqueue], cwd=tmp_path, env=variables, timeout=60, check=True)
        both = {"by hand", "by schedule"}
        wait_for(lambda: both <= set(celery("parcels", "ls").splitlines()), 60, "both ran", worker.tail)
        findings = {
            one["name"]: one["note"] for one in json.loads(celery("doctor", "--json", codes=FAULTS))["findings"]
        }
    assert findings["parcels"] == "there is tape"
    assert "parcels.regular" in celery("schedules", "ls")


def test_what_the_app_does_not_list_does_not_exist(celery: Celery, variables: dict[str, str]) -> None:
    """No table, schedule, queue, command or setting of another application's domains."""
    celery("db", "upgrade")
    tables = set(sa.inspect(sa.create_engine(variables["DATABASE_URL"])).get_table_names())
    assert "parcels" in tables
    assert tables & OF_THE_APPLICATION == set()
    assert "market-resolution" not in celery("queues", "ls")
    assert "markets" not in celery("--help")
    assert "MARKET_CONFIRM_INTERVAL" not in celery("doctor", "--settings", "--json", codes=FAULTS)
