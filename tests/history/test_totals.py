"""The audit's sums are right: attempts of failing handlers to the row and the second, and mixed runs under kill -9."""

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, func, select

from tasks.app import app
from taskyard.history.models import FINAL_STATES, Attempt, DeadLetter, Run
from taskyard.tasks.sending import enqueue_many
from tests.databases import Database
from tests.history import records_app
from tests.history.records_app import Mixed
from tests.monitor.scraping import worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 90  # seconds; the machine may be busy
EXACT = 0.2  # seconds
FATES = ("ok", "ok", "ok", "retry", "snooze", "permanent", "exhausted")
FAILING = {"permanent", "exhausted"}
OURS = ("records.mixed", "records.nothing")
pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def environment(app_database: Database, valkey: Server) -> dict[str, str]:
    return {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url, "WORKER_QUEUE_STALLED_INTERVAL": "2000"}


def test_a_handler_that_fails_k_times_starts_on_time_and_leaves_its_rows(
    app_database: Database, valkey: Server, tmp_path: Path
) -> None:
    """With three attempts, a base of one second and no jitter; k = 0, 1, 2, 3."""
    diaries = {k: tmp_path / f"diary-{k}" for k in range(4)}
    with worker(tmp_path, environment(app_database, valkey)):
        runs = {k: str(records_app.flaky.delay(failures=k, diary=str(diary)).id) for k, diary in diaries.items()}

        def states() -> dict[str, str]:
            with app_database.session() as session:
                wanted = select(Run.id, Run.state).where(col(Run.id).in_(runs.values()))
                return dict(session.exec(wanted.where(col(Run.state).in_(FINAL_STATES))).all())

        wait_for(lambda: len(states()) == 4, LIMIT, "all have ended")
        wait_for(lambda: letters(app_database, runs[3]) == 1, LIMIT, "the last one is a dead letter")
    for k, run_id in runs.items():
        starts = [float(line) for line in diaries[k].read_text().splitlines()]
        gaps = [later - earlier for earlier, later in pairwise(starts)]
        assert len(starts) == attempts(app_database, run_id) == min(k + 1, 3)
        assert all(abs(gap - wanted) <= EXACT for gap, wanted in zip(gaps, (1, 2), strict=False)), (k, gaps)
        assert states()[run_id] == ("failed" if k == 3 else "succeeded")
        assert letters(app_database, run_id) == (1 if k == 3 else 0)


@pytest.mark.timeout(300)
def test_400_mixed_runs_with_two_kills_add_up(app_database: Database, valkey: Server, tmp_path: Path) -> None:
    check_sums(app_database, valkey, tmp_path, total=400, kills=2)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_20000_mixed_runs_with_random_kills_add_up(app_database: Database, valkey: Server, tmp_path: Path) -> None:
    check_sums(app_database, valkey, tmp_path, total=20_000, kills=15)


def check_sums(app_database: Database, valkey: Server, folder: Path, *, total: int, kills: int) -> None:
    chance = random.Random(total)  # noqa: S311 - no secret
    marks = folder / "marks"
    marks.mkdir()
    before = keys(valkey)
    workers = [worker(folder, environment(app_database, valkey), f"w{number}").start() for number in range(2)]
    try:
        fates = enqueue(total, marks)
        for number in range(kills):
            goal = (number + chance.random()) * total / (kills + 1)
            wait_for(lambda goal=goal: ended(app_database) >= goal, 600, f"{goal:.0f} runs have ended")  # type: ignore[misc]  # mypy cannot infer the lambda
            victim = chance.choice(workers)
            victim.kill()
            victim.start(wait_ready=False)
        wait_for(lambda: ended(app_database) >= total, 600, "all have ended", lambda: str(counts(app_database)))
        wait_for(lambda: keys(valkey) <= before, LIMIT, "no key is left", lambda: str(sorted(keys(valkey))[:5]))
        failed = counts(app_database)["failed"]
        wait_for(lambda: letters(app_database) >= failed, LIMIT, "each failed run has its letter")
        wait_for(lambda: not events_left(valkey), LIMIT, "all events are in SQL")
    finally:
        for each in workers:
            each.stop()
    check_rows(app_database, fates, total)


def enqueue(total: int, marks: Path) -> dict[str, str]:
    """Enqueue; return the fate of each run."""
    payloads = [
        Mixed(fate=FATES[number % len(FATES)], folder=str(marks), name=str(number)) for number in range(total - 20)
    ]
    ids = enqueue_many(records_app.mixed, payloads)
    fates = {run_id: payload.fate for run_id, payload in zip(ids, payloads, strict=True)}
    for _ in range(10):
        fates[str(app.send_task("records.nothing", kwargs={}).id)] = "unknown"
        fates[str(app.send_task("records.mixed", kwargs={"fate": 17}).id)] = "invalid"
    return fates


def check_rows(app_database: Database, fates: dict[str, str], total: int) -> None:
    with app_database.session() as session:
        rows: Any = session.exec(select(Run.id, Run.state).where(col(Run.task).in_(OURS))).all()
        states: dict[str, str] = dict(rows)
        reasons = dict(session.exec(select(DeadLetter.run_id, DeadLetter.reason)).all())
        left = session.exec(select(func.count()).where(col(Run.state).not_in(FINAL_STATES))).one()
    assert states.keys() == fates.keys(), "each run has its row, and no row is more"
    assert len(states) == total
    assert left == 0
    assert reasons.keys() == {run_id for run_id, state in states.items() if state == "failed"}
    unlucky = {run_id for run_id, reason in reasons.items() if reason in {"stalled", "worker_lost"}}
    for run_id, fate in fates.items():
        wanted = "failed" if fate in {*FAILING, "unknown", "invalid"} else "succeeded"
        assert states[run_id] == wanted or run_id in unlucky, (fate, states[run_id])
    found = Counter(reasons.values())
    assert (found["unknown_task"], found["invalid_payload"]) == (10, 10)


def ended(app_database: Database) -> int:
    return sum(counts(app_database)[state] for state in FINAL_STATES)


def counts(app_database: Database) -> Counter[str]:
    with app_database.session() as session:
        query = select(Run.state, func.count()).where(col(Run.task).in_(OURS)).group_by(Run.state)
        return Counter(dict(session.exec(query).all()))


def attempts(app_database: Database, run_id: str) -> int:
    with app_database.session() as session:
        return session.exec(select(func.count()).where(Attempt.run_id == run_id)).one()


def letters(app_database: Database, run_id: str | None = None) -> int:
    with app_database.session() as session:
        query = select(func.count()).select_from(DeadLetter)
        return session.exec(query if run_id is None else query.where(DeadLetter.run_id == run_id)).one()


def keys(valkey: Server) -> set[str]:
    """The broker's keys of messages; not those of queues, bindings, its owner, or results that expire."""
    others = ("events", "consumers:", "limits:", "_kombu.", "celery-task-meta-", "platform")
    with valkey.client() as client:
        names = {str(name) for name in client.scan_iter("taskyard:*", count=1000)}
    return {name for name in names if not name.startswith(tuple(f"taskyard:{other}" for other in others))}


def events_left(valkey: Server) -> int:
    with valkey.client() as client:
        return int(client.xlen("taskyard:events"))
