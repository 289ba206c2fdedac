"""A worker that lost its lease: the audit shows who had the task, and who finished it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskyard.cli.jobs.commands import group as jobs
from taskyard.history.queries.runs import attempts_of
from tests.databases import Database, DatabaseServers, lent
from tests.history import records_app
from tests.history.test_worker import state_of
from tests.servers import Server
from tests.waiting import stays_true, wait_for
from tests.workers import MINIMAL, Worker

pytestmark = pytest.mark.timeout(300)
LIMIT = 60  # seconds; the machine may be busy
LEASE = 2.0  # seconds


@pytest.fixture
def database(database_servers: DatabaseServers) -> Iterator[Database]:
    """SQLite: what differs between databases is tested without a worker."""
    yield from lent("sqlite", database_servers, migrated=True)


@pytest.fixture
def workers(app_database: Database, valkey: Server, tmp_path: Path) -> Iterator[Callable[[str, str], Worker]]:
    """Starts workers of one slot, each with a name and a pool; ends them."""
    env = {
        "DATABASE_URL": app_database.url,
        "REDIS_URL": valkey.url,
        "TASKYARD_DATA": str(tmp_path),
        "WORKER_QUEUE_STALLED_INTERVAL": str(int(LEASE * 1000)),
    }
    with ExitStack() as ends:

        def start(name: str, pool: str) -> Worker:
            options = ("-P", pool, "-c", "1", "-Q", "celery,dead-letter", *MINIMAL)
            worker = Worker("tests.history.records_app", tmp_path, name=name, arguments=options, env=env)
            ends.push(worker)
            return worker.start(wait_ready=False)

        yield start


def executions(database: Database, run_id: str) -> list[tuple[str, str | None]]:
    with database.session() as session:
        (attempt,) = attempts_of(session, run_id)
        return [(entry["kind"], entry["worker"]) for entry in attempt.executions or ()]


@pytest.mark.parametrize("pool", ["processes", "threads", "solo"])
def test_the_audit_shows_both_executions_of_a_task_whose_worker_was_suspended(
    app_database: Database, workers: Callable[[str, str], Worker], tmp_path: Path, pool: str
) -> None:
    starts, until = tmp_path / "starts", tmp_path / "until"
    sleeper = workers("sleeper", pool)
    run = str(records_app.linger.delay(starts=str(starts), until=str(until)).id)
    wait_for(starts.exists, LIMIT, "it runs")
    wait_for(lambda: state_of(app_database, run) == "running", LIMIT, "this is told")
    sleeper.suspend()
    workers("heir", pool)
    wait_for(lambda: starts.read_text() == "start\n" * 2, LIMIT, "it runs elsewhere")
    stays_true(lambda: sleeper.is_running, 2 * LEASE, "it is suspended")
    sleeper.resume()
    wait_for(lambda: "lease lost" in sleeper.log.read_text(), LIMIT, "it learns that its lease is gone")
    until.touch()

    wait_for(lambda: len(executions(app_database, run)) == 3, LIMIT, "the audit knows all")
    wanted = [("started", "sleeper@test"), ("stalled", "sleeper@test"), ("started", "heir@test")]
    assert executions(app_database, run) == wanted
    wait_for(lambda: state_of(app_database, run) == "succeeded", LIMIT, "its end is known")
    shown = CliRunner().invoke(jobs, ["show", run])
    assert shown.exit_code == 0
    assert "stalled: lease expired" in shown.output
    assert shown.output.index("started on sleeper@test") < shown.output.index("started on heir@test")
