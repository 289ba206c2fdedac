"""The numbers of `audit stats`, against numbers that are counted by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from taskyard.history.models import Run
from taskyard.history.queries.stats import GroupBy, Percentiles, RunStats, stats
from tests.databases import Database

BEGIN = datetime(2026, 9, 21, tzinfo=UTC)
END = BEGIN + timedelta(minutes=50)


@pytest.fixture
def filled(database: Database) -> Database:
    """100 runs of `a`: waits and runtimes 1-100 ms, every tenth failed; 10 of `b`; some outside."""
    with database.session() as session:
        for number in range(1, 101):
            session.add(
                Run(
                    id=f"a-{number}",
                    task="a",
                    queue="q1" if number <= 60 else "q2",
                    state="failed" if number % 10 == 0 else "succeeded",
                    attempts=3 if number % 10 == 0 else 1,
                    finished_at=BEGIN + timedelta(seconds=number),
                    wait_ms=number,
                    runtime_ms=101 - number,
                )
            )
        for number in range(10):
            session.add(Run(id=f"b-{number}", task="b", queue="q1", state="cancelled", finished_at=BEGIN))
        for name, at in (("early", BEGIN - timedelta(seconds=1)), ("late", END), ("open", None)):
            session.add(Run(id=name, task="c", queue="q1", state="succeeded", finished_at=at, wait_ms=9_999))
        session.commit()
    return database


def of(database: Database, by: GroupBy) -> list[RunStats]:
    with database.session() as session:
        return stats(session, BEGIN, END, by)


def test_counts_rates_and_percentiles_of_each_task(filled: Database) -> None:
    first, second = of(filled, "task")

    assert (first.task, first.queue, first.ended, first.succeeded, first.failed) == ("a", None, 100, 90, 10)
    assert (first.retried, first.per_minute, first.success_rate) == (10, 2.0, 0.9)
    assert first.wait == first.runtime == Percentiles(50, 95, 99, 100)
    assert (second.task, second.cancelled, second.success_rate) == ("b", 10, None)
    assert second.wait == Percentiles(None, None, None, None)


def test_groups_by_queue_and_by_both(filled: Database) -> None:
    queues = {each.queue: each.ended for each in of(filled, "queue")}
    both = {(each.task, each.queue): (each.ended, each.wait.p50) for each in of(filled, "both")}

    assert queues == {"q1": 70, "q2": 40}
    assert both == {("a", "q1"): (60, 30), ("a", "q2"): (40, 80), ("b", "q1"): (10, None)}


def test_nothing_that_ended_is_an_empty_list(database: Database) -> None:
    assert of(database, "both") == []
