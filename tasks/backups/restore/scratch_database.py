"""Scratch databases: created for one run, guarded by their name, dropped at its end or by the next run."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
import structlog
from psycopg import sql

from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.restore.server_address import ServerAddress

KEEPER = "taskyard backup keeper"  # application_name of the session that says: this scratch database is in use
DROP_LIMIT = 60  # seconds
LEFTOVER_LIMIT = 10  # seconds, for what an earlier run left
DROP_PAUSE = 0.5  # seconds between two tries
_NAME = re.compile(r"taskyard_scratch_(?P<target>[a-z0-9][a-z0-9_-]{0,30})_[0-9a-f]{12}")

type OnLeft = Callable[[str, str], None]  # name and reason

log = structlog.stdlib.get_logger(__name__)


def _ignore(_name: str, _reason: str) -> None:
    """Do nothing."""


@dataclass(slots=True)
class ScratchDatabase:
    """A database of our own, to restore into."""

    server: ServerAddress
    name: str
    is_kept: bool = False  # it is not dropped at the end of the run

    def connect(self) -> psycopg.Connection:
        """
        Open a connection to it.

        Raises:
            InfrastructureError: The server cannot be reached, or the database is gone.
        """
        try:
            return self.server.connect(self.name)
        except BackupConfigError as error:
            raise InfrastructureError(f"the scratch database is gone: {error}") from error


def scratch_name(target: str, run_id: UUID) -> str:
    """
    Return the name of a run's scratch database.

    >>> scratch_name("shop", UUID("12345678-1234-5678-1234-567812345678"))
    'taskyard_scratch_shop_123456781234'
    """
    return f"taskyard_scratch_{target}_{run_id.hex[:12]}"


@contextmanager
def scratch_database(
    server: ServerAddress, target: str, run_id: UUID, *, template: str | None = None, on_left: OnLeft = _ignore
) -> Iterator[ScratchDatabase]:
    """
    Create an empty database and drop it at the end, whatever happens in between.

    One that cannot be dropped any more, because the server went away, is dropped by the target's next run. While it
    is in use a session of ours stays in it, so that no other platform on the same server takes it for a leftover.

    Args:
        server: Where to create it.
        target: Part of its name.
        run_id: Part of its name.
        template: The database that it is a copy of; None: template0.
        on_left: Called with name and reason when it could not be dropped.

    Raises:
        BackupConfigError: The user may not create databases or copy the template.
        InfrastructureError: The server cannot be reached.
    """
    name = scratch_name(target, run_id)
    _create(server, name, template or "template0")
    scratch = ScratchDatabase(server, name)
    try:
        with _reaching(server), server.connect(name, program=KEEPER):
            yield scratch
    finally:
        try:
            with server.connect() as connection:
                (keep_scratch if scratch.is_kept else drop_scratch)(connection, name)
        except (InfrastructureError, BackupConfigError, psycopg.Error) as error:
            reason = str(error).strip()
            log.warning("backup.scratch_left", database=name, error=reason, then="the next run drops it")
            on_left(name, reason)


def drop_leftovers(server: ServerAddress, target: str) -> list[str]:
    """
    Drop the target's scratch databases that nobody uses; a killed worker left them. Return their names.

    The caller holds the target's lease. What a killed worker's programs still do in them is ended. One that cannot be
    dropped is logged and left: it does not keep the next dump from being verified. Those that an operator kept stay.

    Raises:
        InfrastructureError: The server cannot be reached.
    """
    dropped = []
    with _reaching(server), server.connect() as connection:
        rows = connection.execute(
            "SELECT d.datname FROM pg_database d WHERE d.datname LIKE 'taskyard!_scratch!_%%' ESCAPE '!' AND NOT EXISTS"
            " (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname AND a.application_name = %s)",
            [KEEPER],
        ).fetchall()
        names = [str(name) for (name,) in rows if _target_of(str(name)) == target]
        for name in names:
            try:
                drop_scratch(connection, name, limit=LEFTOVER_LIMIT)
            except psycopg.errors.ObjectInUse as error:
                log.warning("backup.leftover_in_use", database=name, error=str(error).splitlines()[0])
                continue
            log.info("backup.leftover_dropped", database=name)
            dropped.append(name)
    return dropped


def drop_scratch(connection: psycopg.Connection, name: str, *, limit: float = DROP_LIMIT) -> None:
    """
    Drop a scratch database and end our sessions in it, trying again for ``limit`` seconds; one that is gone is fine.

    A plain DROP ends autovacuum workers itself; WITH (FORCE) does not, and fails without the right to end them.

    Raises:
        ScratchRefusedError: The name is not that of a scratch database; nothing was dropped.
        psycopg.errors.ObjectInUse: Sessions that we may not end are still in it.
    """
    if _target_of(name) is None:
        raise ScratchRefusedError(f"{name!r} is not a scratch database of ours; it is not dropped")
    _execute_alone(connection, name, sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)), limit)


def keep_scratch(connection: psycopg.Connection, name: str) -> None:
    """Give a scratch database a name that no run drops."""
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(name), sql.Identifier(kept_name(name)))
    _execute_alone(connection, name, rename, DROP_LIMIT)


def kept_name(name: str) -> str:
    """
    Return the name under which a scratch database is kept.

    >>> kept_name("taskyard_scratch_shop_123456781234")
    'taskyard_kept_shop_123456781234'
    """
    return name.replace("_scratch_", "_kept_", 1)


def _execute_alone(connection: psycopg.Connection, name: str, statement: sql.Composed, limit: float) -> None:
    """Execute a statement that needs the database without sessions: end those that we may end, and try again."""
    deadline = time.monotonic() + limit
    while True:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND usesysid IS NOT NULL AND pg_has_role(usesysid, 'USAGE')",
            [name],
        )
        try:
            connection.execute(statement)
        except psycopg.errors.ObjectInUse:
            if time.monotonic() >= deadline:
                raise
            time.sleep(DROP_PAUSE)
        else:
            return


def refuse_live(server: ServerAddress, live: Sequence[ServerAddress]) -> None:
    """
    Refuse a scratch server whose database is a live one, by its address or by the server's own identity.

    Raises:
        ScratchRefusedError: They are the same; nothing was changed.
        BackupConfigError: The scratch server refuses us.
        InfrastructureError: The scratch server cannot be reached.
    """
    for other in live:
        if _place(other) == _place(server):
            raise ScratchRefusedError(f"{server.setting} is the live database of {other.setting} ({server.shown})")
    with _reaching(server), server.connect() as connection:
        own = _identity(connection)
    for other in live:
        try:
            with other.connect() as connection:
                theirs = _identity(connection)
        except (InfrastructureError, BackupConfigError, psycopg.Error) as error:
            # A live database that is down must not keep its backup from being verified; nothing is restored into it.
            log.warning("backup.live_not_reached", setting=other.setting, error=str(error).strip())
            continue
        if theirs == own:
            raise ScratchRefusedError(
                f"{server.setting} and {other.setting} lead to the same database (server {own[0]}, {own[1]!r})"
            )


def _create(server: ServerAddress, name: str, template: str) -> None:
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    with _reaching(server), server.connect() as connection:
        try:
            connection.execute(create)
        except psycopg.errors.InsufficientPrivilege as error:
            text = f"{server.setting}: the user may not create databases; give it CREATEDB"
            if "copy" in str(error):
                text = (
                    f"{server.setting}: the user may not copy {template!r}; make it a template or give it to the user"
                )
            raise BackupConfigError(text) from error
        except psycopg.errors.InvalidCatalogName as error:
            raise BackupConfigError(f"{server.setting}: there is no template database {template!r}") from error


@contextmanager
def _reaching(server: ServerAddress) -> Iterator[None]:
    """Turn a fault of the server into what the caller decides by."""
    try:
        yield
    except psycopg.Error as error:
        raise InfrastructureError(f"{server.setting}: {str(error).splitlines()[0]}") from error


def _target_of(name: str) -> str | None:
    found = _NAME.fullmatch(name)
    return found["target"] if found else None


def _place(address: ServerAddress) -> tuple[str, str, str]:
    host = address.parts.get("hostaddr") or address.parts.get("host", "localhost")
    return host.lower(), address.parts.get("port", "5432"), address.database


def _identity(connection: psycopg.Connection) -> tuple[int, str]:
    """Return the number that initdb gave the server, and the database's name: no other address changes them."""
    row = connection.execute("SELECT system_identifier, current_database() FROM pg_control_system()").fetchone()
    if row is None:
        raise InfrastructureError("the server does not say who it is")
    return int(row[0]), str(row[1])
