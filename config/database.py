"""The database: one engine per process, and what SQLite needs to behave like a server."""

import os
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlmodel import Session

from config.settings import SettingsError, current_settings

SQLITE_BUSY_MS = 30_000  # a writer waits so long for the one before it


def open_engine(url: str, pool_size: int = 20) -> Engine:
    """
    Open an engine for PostgreSQL (psycopg) or SQLite.

    SQLite runs in WAL mode, with foreign keys, and takes the write lock at the start of every transaction: a
    transaction that reads first and writes later would otherwise fail with "database is locked" and no wait.

    Raises:
        SettingsError: The URL is not one of these.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            "DATABASE_URL: not a database URL; use sqlite:///file or postgresql+psycopg://..."
        ) from error
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise SettingsError(f"DATABASE_URL: {parsed.drivername!r} is not supported; use sqlite or postgresql+psycopg")
    options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": pool_size}
    options["hide_parameters"] = True  # values of rows belong into no traceback
    if parsed.drivername == "postgresql+psycopg":
        return create_engine(parsed, pool_pre_ping=True, **options)
    engine = create_engine(parsed, connect_args={"timeout": SQLITE_BUSY_MS / 1000}, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


@lru_cache(maxsize=1)
def current_engine() -> Engine:
    """Return this process's engine; a forked child gets its own."""
    return open_engine(current_settings().database_url)


def open_session() -> Session:
    """Open a session on the engine of this process; the caller closes it, best with a ``with`` block."""
    return Session(current_engine(), expire_on_commit=False)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below says when a transaction starts
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={SQLITE_BUSY_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _forget_after_fork() -> None:
    """A forked child must not share the parent's sockets; the parent keeps using them."""
    if current_engine.cache_info().currsize:
        current_engine().dispose(close=False)
        current_engine.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)
