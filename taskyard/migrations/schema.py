"""The database's schema: bring it up to date, say where it stands, and compare it with the models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.schema import CreateSchema

from taskyard.database.identity import ensure_identity
from taskyard.database.tables import without_schema
from taskyard.migrations.owners import TableOwner, table_owners
from taskyard.settings.loading import current_settings

FOLDER = Path(__file__).parent
UPGRADE_LOCK = 7_236_514_201  # of PostgreSQL's advisory locks: one upgrade at a time


@dataclass(frozen=True, slots=True)
class Standing:
    """Which revision the tables of one owner have, and which one the code wants."""

    owner: str
    current: str | None  # None: not migrated yet
    head: str

    @property
    def is_current(self) -> bool:
        """Whether nothing is left to upgrade."""
        return self.current == self.head


def upgrade(engine: Engine, owners: Sequence[TableOwner] | None = None) -> list[Standing]:
    """
    Bring the tables of all owners to their newest revisions, all or nothing; safe to call from several processes.

    Returns the standings before.
    """
    with engine.begin() as connection, without_schema():  # SQLite: takes the write lock, so a second upgrade waits here
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
            if schema := current_settings().taskyard_schema:
                connection.execute(CreateSchema(schema, if_not_exists=True))
        before = [_upgrade_one(connection, owner) for owner in (table_owners() if owners is None else owners)]
        ensure_identity(connection)
        return before


def standings(engine: Engine, owners: Sequence[TableOwner] | None = None) -> list[Standing]:
    """Compare the revision of each owner's tables with its newest one."""
    with engine.connect() as connection:
        return [_standing(connection, owner) for owner in (table_owners() if owners is None else owners)]


def is_current(engine: Engine) -> bool:
    """Tell whether no owner has anything left to upgrade."""
    return all(standing.is_current for standing in standings(engine))


def differences(engine: Engine, owners: Sequence[TableOwner] | None = None) -> list[Any]:
    """List what would have to change in the database to match the models; empty when nothing is left."""
    found: list[Any] = []
    with engine.connect() as connection, without_schema():
        for owner in table_owners() if owners is None else owners:
            options = {"include_object": includes(owner), "version_table": owner.version_table}
            context = MigrationContext.configure(connection, opts=options)
            found += compare_metadata(context, owner.metadata)
    return found


def configuration(owner: TableOwner, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for one owner's revisions."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("version_locations", str(owner.folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(
        connection=connection,
        metadata=owner.metadata,
        version_table=owner.version_table,
        include_object=includes(owner),
    )
    return config


def includes(owner: TableOwner) -> Callable[..., bool]:
    """Return Alembic's filter: nothing of other owners, nor of an app that shares the database."""
    return partial(_is_compared, frozenset(owner.metadata.tables))


def _upgrade_one(connection: Connection, owner: TableOwner) -> Standing:
    before = _standing(connection, owner)
    if not before.is_current:
        command.upgrade(configuration(owner, connection), "head")
    return before


def _standing(connection: Connection, owner: TableOwner) -> Standing:
    head = ScriptDirectory.from_config(configuration(owner)).get_current_head()
    if head is None:
        raise RuntimeError(f"no revision in {owner.folder}")
    context = MigrationContext.configure(connection, opts={"version_table": owner.version_table})
    return Standing(owner.name, context.get_current_revision(), head)


def _is_compared(tables: frozenset[str], _item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Leave out the indexes on text, which only a PostgreSQL with pg_trgm has: models cannot say that."""
    if kind == "table":
        return name in tables
    return not (kind == "index" and (name or "").startswith("trgm_"))
