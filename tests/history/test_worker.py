"""A real worker: it writes the audit, and buries what failed, also after an outage of the database."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, func, select

from tasks.app import app
from taskyard.database.engine import open_engine
from taskyard.history.models import DeadLetter, Run
from taskyard.history.queries.runs import find_run
from tests.app_broker import use_broker
from tests.databases import Database, Postgres, migrate
from tests.history import records_app
from tests.history.dead_letter_rows import report
from tests.servers import Server
from tests.waiting import stays_true, wait_for
from tests.workers import MINIMAL, Worker

pytestmark = pytest.mark.timeout(300)

APP = "tests.history.records_app"
LIMIT = 60  # seconds; the machine may be busy
QUEUES = ("-Q", "celery,dead-letter")


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """SQLite: what differs between databases is tested without a worker."""
    return sqlite_database


@contextmanager
def working(pool: str, database_url: str, valkey: Server, folder: Path) -> Iterator[Worker]:
    """A worker that is ready; it may take its time on a busy machine."""
    env = {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "TASKYARD_DATA": str(folder)}
    worker = Worker(APP, folder, arguments=("-P", pool, "-c", "2", *QUEUES, *MINIMAL), env=env)
    try:
        wait_ready(worker.start(wait_ready=False))
        yield worker
    finally:
        worker.stop()


def wait_ready(worker: Worker) -> None:
    wait_for(lambda: b" ready." in worker.log.read_bytes(), LIMIT, "the worker is ready")


def state_of(database: Database, run_id: str | None) -> str | None:
    with database.session() as session:
        run = find_run(session, run_id or "")
        return run.state if run else None


def letters_of(database: Database, run_id: str | None) -> Sequence[DeadLetter]:
    with database.session() as session:
        return session.exec(select(DeadLetter).where(DeadLetter.run_id == run_id)).all()


def test_a_worker_ends_with_its_writer_and_the_next_one_writes_the_rest(
    app_database: Database, valkey: Server, tmp_path: Path
) -> None:
    with working("threads", app_database.url, valkey, tmp_path) as worker:
        worker.term()
        assert worker.wait_ended() == 0
    with valkey.client() as client:
        assert not client.exists("taskyard:events:writer"), "the lease was given back"
    late = records_app.greet.delay(name="Ada")
    by_hand = report()  # as stock kombu's workers send letters: an ordinary message
    app.send_task("dead_letter.bury", kwargs=by_hand, queue="dead-letter", ignore_result=True)
    with working("threads", app_database.url, valkey, tmp_path / "next"):
        wait_for(lambda: state_of(app_database, late.id) == "succeeded", LIMIT, "the next worker writes it")
        wait_for(lambda: letters_of(app_database, by_hand["run_id"]), LIMIT, "the letter is stored")


def test_a_letter_waits_until_the_database_is_back(valkey: Server, tmp_path: Path) -> None:
    postgres = Postgres()
    try:
        url = postgres.start().url.render_as_string(hide_password=False)
        migrate(url)
        postgres.stop()
        use_broker(valkey.url)
        with working("threads", url, valkey, tmp_path):
            runs = [records_app.greet.delay(name="nobody").id for _ in range(10)]
            wait_for(lambda: tried(valkey) >= 3, LIMIT, "the letters were tried")
            stays_true(lambda: tried(valkey) > 0, 1, "the letters stay")
            postgres.start()
            engine = open_engine(url)
            with Session(engine) as session:

                def buried() -> int:
                    session.rollback()
                    return session.exec(select(func.count()).select_from(DeadLetter)).one()

                wait_for(lambda: buried() == 10, LIMIT, "all letters are stored")
                assert set(session.exec(select(DeadLetter.run_id)).all()) == set(runs)
                wait_for(lambda: finished(session) == 10, LIMIT, "the audit caught up")
            engine.dispose()
    finally:
        postgres.remove()


def tried(valkey: Server) -> int:
    """How many letters came back after a failed try."""
    with valkey.client() as client:
        tags: Any = client.zrange("taskyard:delayed:dead-letter", 0, -1)
        return len(tags)


def finished(session: Session) -> int:
    session.rollback()
    return session.exec(select(func.count()).where(Run.task == "records.greet", Run.state == "failed")).one()
