"""The wheel and the source distribution beside a project that has packages and tables of the same everyday names."""

import json
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskyard.parent_death_signal import tied_to_parent
from tests.distribution.environments import build_distributions, make_environment
from tests.distribution.project import Project
from tests.servers import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)  # packages may have to be fetched
OTHERS = {"audit", "beat", "config", "migrations", "tasks", "tests", "scripts", "bench"}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build_distributions(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_one_package_with_its_types_scripts_and_revisions(distributions: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(distributions[0]).namelist()
    assert {name.split("/")[0] for name in names} == {"taskyard", "taskyard-0.2.0.dist-info"}
    assert {
        "taskyard/py.typed",
        "taskyard/broker/scripts/take.lua",
        "taskyard/migrations/script.py.mako",
        "taskyard/migrations/versions/0001_first_tables.py",
    } <= set(names)
    assert [name for name in names if "standin" in name or "sample" in name] == []


def test_the_source_distribution_holds_the_library_only(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = archive.getnames()
    assert {name.split("/")[1] for name in names} & OTHERS == set()
    assert "taskyard-0.2.0/taskyard/broker/scripts/take.lua" in names


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_a_django_project_with_packages_of_our_names_uses_it(
    python: str, distributions: tuple[Path, Path], valkey: Server, tmp_path: Path
) -> None:
    """A typed task, its dead letter, the listings, and tables beside the project's own in one database."""
    package = distributions[0] if python == "3.12" else distributions[1]
    programs = make_environment(tmp_path / "environment", python, package)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    project = Project(tmp_path / "project", programs, {"DATABASE_URL": url, "REDIS_URL": valkey.url})
    project.create()
    project.run("python", "own_tables.py", url)

    assert "taskyard: upgraded from no tables to 0002" in project.celery("db", "upgrade")
    tables = set(sa.inspect(sa.create_engine(url)).get_table_names())
    assert {"users", "runs", "markets", "alembic_version", "taskyard_runs", "taskyard_alembic_version"} <= tables
    assert {name for name in tables if not name.startswith("taskyard_")} == {
        *("users", "runs", "markets"),
        "alembic_version",
    }
    with sa.create_engine(url).connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one() == "theirs"
        for name in ("users", "runs", "markets"):
            assert connection.execute(sa.select(sa.column("mine")).select_from(sa.table(name))).scalars().all() == [7]

    with worker_of(project, tmp_path / "worker.log") as log:
        enqueue = "import config.celery; from tasks.closing import close_market as c; print(c.delay(market_id='{}').id)"
        good, bad = (project.run("python", "-c", enqueue.format(each)).strip() for each in ("m-1", "gone"))
        listed = wait_for(lambda: ended_runs(project, {good, bad}), 60, "both runs have ended", log.read_text)
    assert listed == {good: "succeeded", bad: "failed"}
    (letter,) = json.loads(project.celery("dlq", "ls", "--json"))["items"]
    assert (letter["run_id"], letter["reason"]) == (bad, "permanent")
    assert "shop.close_market" in project.celery("jobs", "ls")


def ended_runs(project: Project, wanted: set[str]) -> dict[str, str] | None:
    """Return the states of the wanted runs, once they are final."""
    rows = json.loads(project.celery("jobs", "ls", "--json"))["items"]
    states = {
        row["id"]: row["state"] for row in rows if row["id"] in wanted and row["state"] in {"succeeded", "failed"}
    }
    letters = json.loads(project.celery("dlq", "ls", "--json"))["items"]
    return states if set(states) == wanted and letters else None


@contextmanager
def worker_of(project: Project, log: Path) -> Iterator[Path]:
    """Run `celery -A config.celery worker` of the project until the block ends."""
    command = [*tied_to_parent(9), str(project.programs / "celery"), "-A", "config.celery", "worker", "-c", "2"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=project.folder, env=project.variables, stdout=out, stderr=out)
    try:
        wait_for(lambda: b"ready" in log.read_bytes(), 60, "the worker is ready", log.read_text)
        yield log
    finally:
        process.terminate()
        process.wait(40)
