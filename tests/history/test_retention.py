"""Retention: what is old goes, with true counts; what is open, or still going on, stays."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func
from sqlmodel import Session, SQLModel, select

from tasks.app import app
from taskyard.beat.timetable import timetable
from taskyard.database.columns import utc_now
from taskyard.history.dead_letters import find_dead_letter
from taskyard.history.models import Attempt, BulkOperation, DeadLetter, Run, TaskLog
from taskyard.history.retention import Pruned, count_prunable, prune
from taskyard.settings.loading import current_settings
from taskyard.tasks.records.payloads import CleanUpRecords
from taskyard.tasks.records.tasks import cleanup
from tests.databases import Database
from tests.history.dead_letter_rows import put


def days_ago(days: int) -> datetime:
    return utc_now() - timedelta(days=days)


def a_run(name: str, **facts: Any) -> list[SQLModel]:
    known: dict[str, Any] = {"task": "t", "queue": "q", "state": "succeeded"}
    known |= {"enqueued_at": days_ago(40), "finished_at": days_ago(40)}
    return [
        Run(id=name, **known | facts),
        Attempt(run_id=name, number=1, state="succeeded"),
        Attempt(run_id=name, number=2, state="succeeded"),
        TaskLog(run_id=name, attempt=1, event="1", lines=[]),
    ]


def fill(database: Database, old: int = 0) -> None:
    """Some old runs, and one of each kind that must stay."""
    rows = [row for number in range(old) for row in a_run(f"old-{number}")]
    rows += a_run("young", finished_at=utc_now())
    rows += a_run("still running", state="running", finished_at=None)
    rows += a_run("has an open letter", state="failed")
    with database.session() as session:
        session.add_all(rows)
        put(session, run_id="has an open letter")
        for number, state in enumerate(("redriven", "discarded")):
            resolve(session, put(session, run_id=f"resolved-{number}"), state, days_ago(40))
        session.add(BulkOperation(verb="redrive", state="done", who="ada", total=1, finished_at=days_ago(40)))
        session.add(BulkOperation(verb="redrive", state="running", who="ada", total=1, created_at=days_ago(40)))
        session.commit()


def resolve(session: Session, letter: DeadLetter, state: str, at: datetime) -> None:
    found = find_dead_letter(session, letter.id)
    assert found is not None
    found.state, found.resolved_at = state, at


def left(database: Database, model: Any) -> int:
    with database.session() as session:
        return session.exec(select(func.count()).select_from(model)).one()


def test_old_records_go_in_batches_and_are_counted_truly(database: Database) -> None:
    fill(database, old=25)
    with database.session() as session:
        foretold = count_prunable(session, days_ago(30))
    steps: list[Pruned] = []
    done = prune(database.session, days_ago(30), batch=10, on_batch=steps.append)

    assert done == foretold == Pruned(runs=25, attempts=50, logs=25, dead_letters=2, operations=1)
    assert [step.runs for step in steps][:3] == [10, 20, 25]
    assert (left(database, Run), left(database, Attempt), left(database, TaskLog)) == (3, 6, 3)
    assert (left(database, DeadLetter), left(database, BulkOperation)) == (1, 1)
    assert prune(database.session, days_ago(30)) == Pruned(), "nothing is left to do"


@pytest.mark.parametrize(("days", "runs"), [(None, 4), (0, 4), (30, 3), (41, 4)])
def test_the_task_follows_the_retention_and_0_keeps_everything(
    app_database: Database, monkeypatch: pytest.MonkeyPatch, days: int | None, runs: int
) -> None:
    monkeypatch.setenv("AUDIT_LOG_RETENTION_DAYS", "0")
    fill(app_database, old=1)
    cleanup.handler(CleanUpRecords(retention_days=days))  # type: ignore[attr-defined]  # of the task class

    assert left(app_database, Run) == runs


@pytest.mark.parametrize(("days", "is_there"), [("30", True), ("0", False)])
def test_the_timetable_cleans_up_daily_at_three_unless_all_is_kept(
    days: str, monkeypatch: pytest.MonkeyPatch, *, is_there: bool
) -> None:
    monkeypatch.setenv("AUDIT_LOG_RETENTION_DAYS", days)
    current_settings.cache_clear()
    (entry,) = (each for each in timetable(app.domains) if each.name == "audit.cleanup")
    current_settings.cache_clear()

    assert entry.is_enabled is is_there
    assert entry.definition().expression == "0 3 * * *"


def test_a_run_goes_once_its_letter_is_resolved(database: Database) -> None:
    name = str(uuid4())
    with database.session() as session:
        session.add_all(a_run(name, state="failed"))
        letter = put(session, run_id=name)
        session.commit()
        assert prune(database.session, utc_now()).runs == 0
        resolve(session, letter, "discarded", utc_now())
        session.commit()

    assert prune(database.session, utc_now()).runs == 1
