"""A Django project of somebody else: packages `config`, `tasks`, `audit`, `beat`, tables `users`, `runs`, `markets`."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

CELERY = """
import os

from taskyard import Taskyard

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
app = Taskyard("shop", include=["tasks.closing"])
"""
TASK = """
from audit import note
from taskyard import DEFAULT, Payload, PermanentError, task


class CloseMarket(Payload):
    market_id: str


@task("shop.close_market", CloseMarket, queue=DEFAULT)
def close_market(payload: CloseMarket) -> str:
    if payload.market_id == "gone":
        raise PermanentError("no such market")
    return note(payload.market_id)
"""
AUDIT = """
import beat


def note(market_id: str) -> str:
    return f"{beat.WORD} {market_id}"
"""
OWN_TABLES = """
import sys

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

with sa.create_engine(sys.argv[1]).begin() as connection:
    operations = Operations(MigrationContext.configure(connection))
    for name in ("users", "runs", "markets"):
        operations.create_table(name, sa.Column("mine", sa.Integer, primary_key=True))
        operations.bulk_insert(sa.table(name, sa.column("mine", sa.Integer)), [{"mine": 7}])
    operations.create_table("alembic_version", sa.Column("version_num", sa.String(32), primary_key=True))
    versions = sa.table("alembic_version", sa.column("version_num", sa.String))
    operations.bulk_insert(versions, [{"version_num": "theirs"}])
"""


class Project:
    """The project in a folder, and its programs in an environment."""

    def __init__(self, folder: Path, programs: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.programs = programs
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.variables = {**kept, **variables, "PYTHONPATH": str(folder)}

    def create(self) -> None:
        """Start it as Django's tutorial does, then add the Celery app and packages with everyday names."""
        self.folder.mkdir()
        self.run("django-admin", "startproject", "config", ".")
        self._write("config/celery.py", CELERY)
        self._write("tasks/__init__.py", "")
        self._write("tasks/closing.py", TASK)
        self._write("audit/__init__.py", AUDIT)
        self._write("beat.py", 'WORD = "closed"\n')
        self._write("own_tables.py", OWN_TABLES)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the folder; return what it printed."""
        ended = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{program} {arguments}: {ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def celery(self, *arguments: str) -> str:
        """Run `celery -A config.celery ...`."""
        return self.run("celery", "-A", "config.celery", *arguments)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
