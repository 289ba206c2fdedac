"""Which platform a database belongs to: an id that the schema is made with, and that a backup keeps."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import Column, Connection, Engine, create_engine, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, col

from taskyard.database.columns import UtcDateTime, utc_now
from taskyard.database.engine import open_engine
from taskyard.database.tables import TaskyardTable

PATIENCE = timedelta(seconds=2)  # a producer's first publish waits no longer for the database
ASK_AGAIN = 60.0  # seconds until a database that did not tell its identity is asked again
_known: dict[tuple[str, str | None], "_Answer"] = {}


class PlatformRow(TaskyardTable, table=True):
    """The identity of the platform; there is one row."""

    __tablename__ = "taskyard_platform"

    id: UUID = Field(primary_key=True)
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


@dataclass(frozen=True, slots=True)
class _Answer:
    identity: UUID | None
    asked_at: float  # monotonic seconds


def ensure_identity(connection: Connection) -> None:
    """Give the platform of this database an identity, if it has none."""
    if connection.execute(select(col(PlatformRow.id))).first() is None:
        connection.execute(insert(PlatformRow).values(id=uuid4(), created_at=utc_now()))


def read_identity(engine: Engine) -> UUID | None:
    """Return the identity of the platform of this database; None: it does not answer, or was not migrated."""
    try:
        with engine.connect() as connection:
            return connection.execute(select(col(PlatformRow.id))).scalar_one_or_none()
    except DBAPIError:
        return None


def identity_of(url: str, schema: str | None = None) -> UUID | None:
    """
    Return the identity of the platform of a database, asked for once per process; None: as :func:`read_identity`.

    Publishing needs no database: one that is away is given up after two seconds, and left alone for a minute.
    """
    key = (url, schema)
    known = _known.get(key)
    if known is None or (known.identity is None and time.monotonic() - known.asked_at > ASK_AGAIN):
        known = _known[key] = _Answer(_ask(url, schema), time.monotonic())
    return known.identity


def forget_identities() -> None:
    """Ask all databases again."""
    _known.clear()


def database_name(url: str) -> str:
    """
    Say which database a URL means, without user and password.

    >>> database_name("postgresql+psycopg://app:secret@db.test:5433/jobs?sslpassword=x")
    'postgresql://db.test:5433/jobs'
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///{Path(parsed.database or '').absolute()}"
    port = f":{parsed.port}" if parsed.port else ""
    return f"{parsed.get_backend_name()}://{parsed.host or ''}{port}/{parsed.database or ''}"


def _ask(url: str, schema: str | None) -> UUID | None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not Path(parsed.database or "").is_file():
            return None  # to connect would make the file
        engine = create_engine(parsed)  # without the write lock of ours: the caller's own transaction may have it
    else:
        engine = open_engine(url, 1, PATIENCE, schema=schema)
    try:
        return read_identity(engine)
    finally:
        engine.dispose()
