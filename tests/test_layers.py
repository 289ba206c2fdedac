"""The layers hold: what must not be imported makes `make check` fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("audit", "beat", "config", "tasks", "taskyard")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("taskyard/tasks/policy.py", "import tasks.app", "The library imports nothing of the application"),
        ("taskyard/broker/untyped.py", "import taskyard.history.models", "The library's imports go down only"),
        ("tasks/markets/handlers.py", "import celery", "Handlers and stores of domains know neither Celery"),
        ("taskyard/webhooks/handlers.py", "import celery", "Handlers and stores of webhooks know neither Celery"),
        ("tasks/backups/store.py", "import tasks.markets.store", "Domains are independent"),
        ("tasks/markets/store.py", "import taskyard.broker.server.client", "The application uses the library's public"),
        ("config/queues.py", "import audit.policy", "The application's imports go down only"),
    ],
)
def test_an_import_past_a_layer_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert f"\n{contract}" in ended.stdout.partition("Broken contracts")[2], ended.stdout
