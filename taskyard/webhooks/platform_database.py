"""Tell whether a session is on the platform's database: an event on another one would never be delivered."""

from pathlib import Path
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from taskyard.database.engine import current_engine
from taskyard.settings.platform import Settings

# A server's start and the number of a database tell it from every other, through whatever name or pooler it is reached.
_IDENTITY = "SELECT pg_postmaster_start_time()::text, (SELECT oid FROM pg_database WHERE datname = current_database())"

_checked: WeakKeyDictionary[Engine, str] = WeakKeyDictionary()  # the DATABASE_URL that an engine was found to be on


class WrongDatabaseError(ValueError):
    """The session is on another database than DATABASE_URL; nothing was written."""


def check_database(session: Session, settings: Settings) -> None:
    """
    Refuse a session on another database than the platform's.

    Raises:
        WrongDatabaseError: It is on another one.
    """
    bind = session.get_bind()
    if _checked.get(bind.engine) == settings.database_url:
        return
    ours = make_url(settings.database_url)
    if not (_is_same_url(bind.engine.url, ours) or _is_same_server(session, ours)):
        raise WrongDatabaseError(
            f"the session is on {bind.engine.url.database!r}, not on the platform's database {ours.database!r} "
            "(DATABASE_URL): its events would never be delivered"
        )
    _checked[bind.engine] = settings.database_url


def _is_same_url(theirs: URL, ours: URL) -> bool:
    if theirs.get_backend_name() != ours.get_backend_name():
        return False
    if ours.get_backend_name() == "sqlite":
        paths = [url.database or "" for url in (theirs, ours)]
        return all(paths) and ":memory:" not in paths and len({Path(path).resolve() for path in paths}) == 1
    return (theirs.host, theirs.port, theirs.database) == (ours.host, ours.port, ours.database)


def _is_same_server(session: Session, ours: URL) -> bool:
    if {session.get_bind().dialect.name, ours.get_backend_name()} != {"postgresql"}:
        return False
    with current_engine().connect() as connection:
        return _identity(connection) == _identity(session.connection())


def _identity(connection: Connection) -> tuple[str, int]:
    started, number = connection.execute(text(_IDENTITY)).one()
    return str(started), int(number)
