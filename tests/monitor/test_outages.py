"""Database and broker go away under load: no outcome suffers, nothing is lost, and the numbers say what is going on."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from kombu.exceptions import OperationalError
from redis import RedisError
from sqlmodel import Session, col, select

from taskyard.database.engine import open_engine
from taskyard.history.models import Run
from tests.app_broker import use_broker
from tests.databases import Postgres, migrate
from tests.history import records_app
from tests.monitor.scraping import fetch, free_port, samples, worker
from tests.servers import Server
from tests.waiting import stays_true, wait_for

LIMIT = 60  # seconds
TOKEN = "scrape-me"
PAUSE = 0.02  # seconds between two tasks of the load


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres().start()
    yield server
    server.remove()


class Load:
    """Enqueues all the time, and knows what was accepted."""

    def __init__(self) -> None:
        self.accepted: list[tuple[str, datetime]] = []
        self.refused = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE):
            try:
                run = records_app.greet.delay(name="Ada")
            except (OperationalError, RedisError, OSError):
                self.refused += 1
            else:
                self.accepted.append((str(run.id), datetime.now(UTC)))


@pytest.mark.timeout(240)
def test_a_stopped_database_and_a_killed_broker_under_load(postgres: Postgres, valkey: Server, tmp_path: Path) -> None:
    check_outages(postgres, valkey, tmp_path, database_seconds=3, broker_seconds=1)


@pytest.mark.chaos
def test_a_database_stopped_for_60_s_and_a_broker_for_10_s(postgres: Postgres, valkey: Server, tmp_path: Path) -> None:
    check_outages(postgres, valkey, tmp_path, database_seconds=60, broker_seconds=10)


def check_outages(
    postgres: Postgres, valkey: Server, folder: Path, *, database_seconds: float, broker_seconds: float
) -> None:
    url = postgres.url.render_as_string(hide_password=False)
    migrate(url)
    use_broker(valkey.url)
    port = free_port()
    env = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "TASKYARD_DATA": str(folder / "data")}
    env |= {"METRICS_PORT": str(port), "METRICS_AUTH_TOKEN": TOKEN, "AUDIT_BACKLOG_LIMIT": "100"}
    with worker(folder, env) as working:
        with Load() as load:
            wait_until_ready(port)
            assert fetch(port, "/metrics")[0] == 401
            assert fetch(port, "/elsewhere")[0] == 404
            postgres.stop()
            stopped_at = datetime.now(UTC)
            wait_for(lambda: number(port, "taskyard_audit_backlog") > 100, LIMIT, "the backlog rises")
            wait_for(lambda: number(port, "taskyard_up", part="database") == 0, LIMIT, "the database is down")
            status, report = fetch(port, "/readyz")
            assert (status, "AUDIT_BACKLOG_LIMIT" in report) == (503, True)
            stays_true(lambda: fetch(port, "/healthz")[0] == 200, database_seconds, "the process is alive")
            back_at = datetime.now(UTC)
            postgres.start()
            wait_for(lambda: 0 <= number(port, "taskyard_audit_backlog") < 50, LIMIT, "the backlog falls")
            valkey.kill()
            stays_true(lambda: fetch(port, "/healthz")[0] == 200, broker_seconds, "the process is alive")
            valkey.start()
            before = len(load.accepted)
            wait_for(lambda: len(load.accepted) > before + 50, LIMIT, "tasks are accepted again", working.tail)
            wait_until_ready(port)
        check_rows(url, load, stopped_at, back_at)


def wait_until_ready(port: int) -> None:
    wait_for(lambda: fetch(port, "/readyz")[0] == 200, LIMIT, "ready", lambda: fetch(port, "/readyz")[1])


def number(port: int, name: str, **labels: str) -> float:
    found = samples(fetch(port, "/metrics", TOKEN)[1])
    return found.get((name, tuple(sorted(labels.items()))), -1.0)


def check_rows(url: str, load: Load, stopped_at: datetime, back_at: datetime) -> None:
    engine = open_engine(url)
    with Session(engine) as session:

        def missing() -> set[str]:
            session.rollback()
            done = session.exec(select(Run.id).where(col(Run.state) == "succeeded")).all()
            return {run_id for run_id, _ in load.accepted} - set(done)

        wait_for(lambda: not missing(), LIMIT, "each accepted task has its row", lambda: f"{len(missing())} have none")
        in_outage = select(Run).where(col(Run.enqueued_at) > stopped_at, col(Run.enqueued_at) < back_at)
        runs = session.exec(in_outage.where(Run.task == "records.greet")).all()
        waits = sorted(run.wait_ms or 0 for run in runs)
        assert {run.attempts for run in runs} == {1}
        assert waits[len(waits) * 9 // 10] < timedelta(seconds=1).total_seconds() * 1000, "no task waited for SQL"
    engine.dispose()
