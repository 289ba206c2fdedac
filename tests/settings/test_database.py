"""What an engine does when the server or the lock it needs is not there at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import InternalError, OperationalError

from taskyard.database import engine as engine_module
from taskyard.database.engine import open_engine
from tests.databases import DatabaseServers
from tests.waiting import wait_for

PATIENCE = timedelta(milliseconds=50)


@pytest.fixture
def server(database_servers: DatabaseServers) -> Iterator[str]:
    """The URL of a PostgreSQL database."""
    url = database_servers.make("postgresql", migrated=False)
    yield url
    database_servers.drop(url)


def test_a_connection_that_died_at_rest_is_replaced_unseen(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "REST", 0.0)
    engine = open_engine(server)
    before = backend(engine)
    end_backend(server, before)

    assert backend(engine) != before

    engine.dispose()


def test_a_connection_that_worked_just_now_is_not_asked_first(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The price of the saved round trip: who comes within a second of the server's end sees it, once."""
    monkeypatch.setattr(engine_module, "REST", 3600.0)
    engine = open_engine(server)
    before = backend(engine)
    end_backend(server, before)

    with pytest.raises(OperationalError):
        backend(engine)
    assert backend(engine) != before

    engine.dispose()


@pytest.mark.parametrize("patience", [None, timedelta(seconds=5)])
def test_a_primary_that_became_a_standby_is_left(server: str, patience: timedelta | None) -> None:
    """Its connections live on, and refuse to write; the next ones are new, and go where the name leads then."""
    engine = open_engine(server, patience=patience)
    before = backend(engine)
    with engine.begin() as connection:
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(InternalError, match="read-only transaction"), engine.begin() as connection:
        connection.execute(text("CREATE TABLE a (b int)"))

    assert backend(engine) != before
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE a (b int)"))

    engine.dispose()


def test_a_writer_gets_the_lock_of_the_one_before_it(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'one.db'}")
    with engine.begin() as first:
        first.execute(text("CREATE TABLE t (n INTEGER)"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: insert(engine), range(400)))
    with engine.begin() as session:
        assert session.scalar(text("SELECT count(*) FROM t")) == 400
    engine.dispose()


def test_a_writer_gives_up_when_its_patience_is_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    engine, impatient = open_engine(url), open_engine(url, patience=PATIENCE)
    with engine.begin(), pytest.raises(OperationalError, match="locked"), impatient.begin():
        pass
    with impatient.begin():  # and is none the worse for it
        pass
    engine.dispose()
    impatient.dispose()


def insert(engine: Engine) -> None:
    with engine.begin() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))


def backend(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def end_backend(url: str, pid: int) -> None:
    other = open_engine(url)
    with other.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # else it sees one moment
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        wait_for(lambda: connection.execute(alive, {"pid": pid}).scalar_one() == 0, 10, "the backend has ended")
    other.dispose()
