"""The timetable of a fresh install: every entry runs under default settings, and none is a nuisance."""

from pathlib import Path

import pytest
from sqlmodel import Session, select

from tasks.app import app
from taskyard.beat.deploy import deploy
from taskyard.beat.timetable import timetable
from taskyard.beat.views import list_schedules
from taskyard.database.engine import open_engine
from taskyard.history.models import DeadLetter, Run
from taskyard.history.queries.runs import find_run
from taskyard.settings.queues import QUEUES
from tests.app_broker import use_broker
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

LIMIT = 120  # seconds; the machine may be busy
ONCE_A_MINUTE = 60.0  # seconds
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def fresh(sqlite_database: Database, valkey: Server) -> Database:
    """A migrated database, and the app of this process on an empty broker."""
    use_broker(valkey.url)
    return sqlite_database


def test_every_entry_runs_once_without_a_dead_letter(fresh: Database, valkey: Server, tmp_path: Path) -> None:
    env = {"DATABASE_URL": fresh.url, "REDIS_URL": valkey.url, "TASKYARD_DATA": str(tmp_path)}
    queues = ",".join(queue.name for queue in QUEUES)
    entries = [entry for entry in timetable(app.domains) if entry.is_enabled]
    assert entries
    with Worker("tasks", tmp_path, arguments=("-P", "threads", "-c", "2", "-Q", queues, *MINIMAL), env=env) as worker:
        sent = {entry.task.enqueue(entry.payload).id: entry.name for entry in entries}
        wait_for(lambda: ended(fresh, sent) == set(sent), LIMIT, "all have ended", worker.tail)
    with fresh.session() as session:
        states = {name: session.get_one(Run, run_id).state for run_id, name in sent.items()}
        assert session.exec(select(DeadLetter)).all() == []
    assert states == dict.fromkeys(sent.values(), "succeeded")


def test_an_entry_whose_setting_is_missing_is_listed_as_disabled(fresh: Database) -> None:
    entries = timetable(app.domains)
    engine = open_engine(fresh.url)
    deploy(engine, entries)
    engine.dispose()
    with fresh.session() as session:
        views = {view.schedule.name: view for view in list_schedules(session, entries)}
    assert views.keys() == {entry.name for entry in entries}
    disabled = {name: view.needs for name, view in views.items() if view.state == "disabled"}
    assert disabled == {entry.name: entry.needs for entry in entries if not entry.is_enabled}
    assert disabled["backups.verify"] == "BACKUP_PROFILES or BACKUP_DUMP_PATH"
    assert all(disabled.values()), "each says what it needs"
    assert views["audit.cleanup"].state == "active"


def test_an_idle_platform_runs_nothing_more_than_once_a_minute() -> None:
    often = {e.name: e.when.expression for e in timetable(app.domains) if e.is_enabled and e.when.kind == "every"}
    assert often, "there are sweeps"
    assert [name for name, seconds in often.items() if float(seconds) < ONCE_A_MINUTE] == []


def ended(database: Database, run_ids: dict[str, str]) -> set[str]:
    with database.session() as session:
        return {run_id for run_id in run_ids if _is_over(session, run_id)}


def _is_over(session: Session, run_id: str) -> bool:
    run = find_run(session, run_id)
    return run is not None and run.finished_at is not None
