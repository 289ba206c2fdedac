"""Scratch databases: created for one run, guarded by their name, dropped at its end or by the next run."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
import structlog
from psycopg import sql

from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.restore.server_address import ServerAddress

KEEPER = "taskyard backup keeper"  # application_name of the session that says: this scratch database is in use
_NAME = re.compile(r"taskyard_scratch_(?P<target>[a-z0-9][a-z0-9_-]{0,30})_[0-9a-f]{12}")

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ScratchDatabase:
    """An empty database of our own, to restore into."""

    server: ServerAddress
    name: str

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
def scratch_database(server: ServerAddress, target: str, run_id: UUID) -> Iterator[ScratchDatabase]:
    """
    Create an empty database and drop it at the end, whatever happens in between.

    One that cannot be dropped any more, because the server went away, is dropped by the target's next run. While it
    is in use a session of ours stays in it, so that no other platform on the same server takes it for a leftover.

    Raises:
        BackupConfigError: The user may not make databases.
        InfrastructureError: The server cannot be reached.
    """
    name = scratch_name(target, run_id)
    _create(server, name)
    try:
        with _reaching(server), server.connect(name, program=KEEPER):
            yield ScratchDatabase(server, name)
    finally:
        try:
            with server.connect() as connection:
                drop_scratch(connection, name)
        except (InfrastructureError, BackupConfigError, psycopg.Error) as error:
            log.warning("backup.scratch_left", database=name, error=str(error).strip(), then="the next run drops it")


def drop_leftovers(server: ServerAddress, target: str) -> list[str]:
    """
    Drop the target's scratch databases that nobody uses; a killed worker left them. Return their names.

    The caller holds the target's lease. What a killed worker's programs still do in them is ended.

    Raises:
        InfrastructureError: The server cannot be reached.
    """
    with _reaching(server), server.connect() as connection:
        rows = connection.execute(
            "SELECT d.datname FROM pg_database d WHERE d.datname LIKE 'taskyard!_scratch!_%%' ESCAPE '!' AND NOT EXISTS"
            " (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname AND a.application_name = %s)",
            [KEEPER],
        ).fetchall()
        names = [str(name) for (name,) in rows if _target_of(str(name)) == target]
        for name in names:
            drop_scratch(connection, name)
            log.info("backup.leftover_dropped", database=name)
    return names


def drop_scratch(connection: psycopg.Connection, name: str) -> None:
    """
    Drop a scratch database and end all that works in it; one that is not there any more is fine.

    Raises:
        ScratchRefusedError: The name is not that of a scratch database; nothing was dropped.
    """
    if _target_of(name) is None:
        raise ScratchRefusedError(f"{name!r} is not a scratch database of ours; it is not dropped")
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


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


def _create(server: ServerAddress, name: str) -> None:
    with _reaching(server), server.connect() as connection:
        try:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege as error:
            raise BackupConfigError(f"{server.setting}: the user may not create databases; give it CREATEDB") from error


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
