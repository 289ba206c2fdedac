"""The layers hold: what must not be imported makes `make check` fail."""

import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
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


def test_no_modules_import_each_other() -> None:
    assert find_cycle(*PACKAGES) == []


@pytest.mark.parametrize(
    "back",
    [
        "def late():\n    from first_house import use\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from first_house import use\n",
        "import first_house.rooms.attic\n",  # runs the package around it first, which imports `use`
    ],
    ids=["in a function", "for types only", "by the package around it"],
)
def test_a_cycle_is_seen_however_it_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: str) -> None:
    write(
        tmp_path / "first_house",
        {
            "__init__.py": "",
            "use.py": "from first_house import made\n",
            "made.py": back,
            "rooms/__init__.py": "from first_house.use import made\n",
            "rooms/attic.py": "",
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert set(find_cycle("first_house")) >= {"first_house.made", "first_house.use"}


def find_cycle(*packages: str) -> list[str]:
    """The modules along a cycle of imports, the first one again at its end; a package runs before what is in it."""
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {
        module: {
            each
            for imported in graph.find_modules_directly_imported_by(module)
            for each in lineage(imported) - lineage(module)
        }
        for module in graph.modules
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []


def lineage(module: str) -> set[str]:
    """The module and the packages around it."""
    words = module.split(".")
    return {".".join(words[: count + 1]) for count in range(len(words))}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
