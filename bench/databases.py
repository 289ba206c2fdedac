"""Databases for measurements: migrated, and durable as in production."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.app import DOMAINS
from taskyard.database.engine import open_engine
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import upgrade
from tests.databases import Database, Kind, Postgres


@contextmanager
def durable_database(kind: Kind, folder: Path, *, preload: str = "") -> Iterator[Database]:
    """A PostgreSQL that waits for the disk at each commit, or a SQLite file in `folder`; gone with the block."""
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'bench.db'}"
        if kind == "postgresql":
            server = Postgres(durable=True, preload=preload).start()
            stack.callback(server.remove)
            url = server.url.render_as_string(hide_password=False)
        engine = open_engine(url)
        stack.callback(engine.dispose)
        upgrade(engine, table_owners(DOMAINS))
        yield Database(kind, url, engine)
