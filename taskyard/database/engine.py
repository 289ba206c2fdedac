"""The database: one engine per process, and what SQLite needs to behave like a server."""

import math
import os
from datetime import timedelta
from functools import lru_cache, partial
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, OperationalError
from sqlmodel import Session

from taskyard.settings.group import SettingsError
from taskyard.settings.loading import current_settings

SQLITE_BUSY_MS = 30_000  # a writer waits so long for the one before it
SQLITE_NAP_MS = 1  # between two tries of a writer that waits
REST = 1.0  # seconds; a connection that was idle for longer is asked whether it lives before it is used
READ_ONLY = "25006"  # read_only_sql_transaction in PostgreSQL's table of error codes
MS = timedelta(milliseconds=1)


def open_engine(
    url: str, pool_size: int = 20, patience: timedelta | None = None, *, schema: str | None = None
) -> Engine:
    """
    Open an engine for PostgreSQL (psycopg) or SQLite.

    SQLite runs in WAL mode, with foreign keys, and takes the write lock at the start of every transaction: a
    transaction that reads first and writes later would otherwise fail with "database is locked" and no wait.

    With a `patience`, a server that cannot be reached and a lock that is held for longer are errors; and PostgreSQL
    itself rolls back what a process of ours began when that process is silent for longer, suspended or cut off.

    With a `schema`, PostgreSQL looks for tables there first, and makes new ones there.

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
        engine = _open_postgresql(parsed, options, patience)
        if schema is not None:
            event.listen(engine, "connect", partial(_search_first, schema))
        return engine
    busy_ms = SQLITE_BUSY_MS if patience is None else patience // MS
    engine = create_engine(parsed, connect_args={"timeout": busy_ms / 1000}, **options)
    event.listen(engine, "connect", partial(_prepare_sqlite, busy_ms))
    event.listen(engine, "begin", partial(_begin_immediate, busy_ms / 1000))
    return engine


@lru_cache(maxsize=1)
def current_engine() -> Engine:
    """Return this process's engine; a forked child gets its own."""
    settings = current_settings()
    return open_engine(settings.database_url, schema=settings.taskyard_schema)


def open_session() -> Session:
    """Open a session on the engine of this process; the caller closes it, best with a ``with`` block."""
    return Session(current_engine(), expire_on_commit=False)


def _open_postgresql(url: URL, options: dict[str, Any], patience: timedelta | None) -> Engine:
    engine = _connect_postgresql(url, options, patience)
    event.listen(engine, "handle_error", _leave_a_standby)
    return engine


def _connect_postgresql(url: URL, options: dict[str, Any], patience: timedelta | None) -> Engine:
    if patience is None:
        engine = create_engine(url, **options)
        event.listen(engine, "checkin", _note_time)
        event.listen(engine, "checkout", partial(_ping_after_a_rest, engine))
        return engine
    seconds = max(math.ceil(patience.total_seconds()), 1)
    network = {
        "connect_timeout": max(seconds, 2),  # libpq takes less as 2
        "keepalives_idle": seconds,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * seconds,
    }
    engine = create_engine(url, pool_pre_ping=True, connect_args=network, **options)
    event.listen(engine, "connect", partial(_limit_locks, patience // MS))
    return engine


def _leave_a_standby(context: Any) -> None:
    """A primary that became a standby keeps its connections: let go of all, new ones go where the name leads."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _note_time(_connection: Any, record: Any) -> None:
    if record is not None:
        record.info["rests_since"] = monotonic()


def _ping_after_a_rest(engine: Engine, connection: Any, record: Any, _proxy: Any) -> None:
    """
    As `pool_pre_ping`, but without the round trip for a connection that worked within the last second.

    Raises:
        InvalidatePoolError: The server is gone; the pool opens new connections and goes on.
    """
    if monotonic() - record.info.get("rests_since", monotonic()) < REST:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _limit_locks(limit_ms: int, connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        for name in ("idle_in_transaction_session_timeout", "lock_timeout"):
            cursor.execute(f"SET {name} = {limit_ms:d}")
    connection.commit()


def _search_first(schema: str, connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), false)", (schema,)
        )
    connection.commit()


def _prepare_sqlite(busy_ms: int, connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below says when a transaction starts
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={busy_ms}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_NAP_MS}")  # from here on, only `_begin_immediate` waits
    cursor.close()


def _begin_immediate(patience: float, connection: Any) -> None:
    """
    Take the write lock, and ask for it often.

    SQLite itself waits longer after each try, up to 100 ms: under load the lock is then free for most of the time, and
    who came first waits longest.
    """
    deadline = monotonic() + patience
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorname", "")[:11] != "SQLITE_BUSY" or monotonic() >= deadline:
                raise
            sleep(SQLITE_NAP_MS / 1000)
        else:
            return


def _forget_after_fork() -> None:
    """A forked child must not share the parent's sockets; the parent keeps using them."""
    if current_engine.cache_info().currsize:
        current_engine().dispose(close=False)
        current_engine.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)
