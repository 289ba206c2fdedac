"""The database's schema: bring it up to date, say where it stands, and compare it with the models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlmodel import SQLModel

import taskyard.beat.models
import taskyard.history.models
import taskyard.history.operator_log
import taskyard.webhooks.models  # noqa: F401 - registers its tables

METADATA = SQLModel.metadata
FOLDER = Path(__file__).resolve().parents[2] / "migrations"
UPGRADE_LOCK = 7_236_514_201  # of PostgreSQL's advisory locks: one upgrade at a time


@dataclass(frozen=True, slots=True)
class Standing:
    """Which revision the database has, and which one the code wants."""

    current: str | None  # None: no table of ours yet
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing is left to upgrade."""
        return self.current == self.head


def upgrade(engine: Engine) -> Standing:
    """
    Bring the schema to the newest revision, all or nothing; safe to call from several processes at once.

    Returns the standing before.
    """
    with engine.begin() as connection:  # SQLite: takes the write lock, so a second upgrade waits here
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
        before = _standing(connection)
        if not before.is_current:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before


def standing(engine: Engine) -> Standing:
    """Compare the database's revision with the newest one."""
    with engine.connect() as connection:
        return _standing(connection)


def differences(engine: Engine) -> list[Any]:
    """List what would have to change in the database to match the models; empty when nothing is left."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": _is_compared})
        return list(compare_metadata(context, METADATA))


def _standing(connection: Connection) -> Standing:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"no revision in {FOLDER / 'versions'}")
    return Standing(MigrationContext.configure(connection).get_current_revision(), head)


def _is_compared(_item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Leave out the indexes on text, which only a PostgreSQL with pg_trgm has: models cannot say that."""
    return not (kind == "index" and (name or "").startswith("trgm_"))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
