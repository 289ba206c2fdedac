"""Each way to fail for good leaves one dead letter and a failed run, in every pool."""

import signal
from pathlib import Path

import pytest
from sqlmodel import col, select

from tasks.app import app
from taskyard.history.models import FINAL_STATES, DeadLetter, Run
from taskyard.history.queries.runs import attempts_of, find_run
from tests.databases import Database
from tests.history import records_app
from tests.monitor.scraping import worker
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import Worker

LIMIT = 90  # seconds; the machine may be busy
BROKEN = "a-broken-message"
# A thread cannot be ended from outside, and solo has no other: neither has a hard time limit, and a task that is late
# simply ends late. What needs the limit has a profile with processes (backups), or is `async def` in the asyncio pool,
# whose limit tests/pools covers.
POOLS_WITHOUT_LIMIT = {"solo", "threads"}
pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("database", ["postgresql"], indirect=True)]


@pytest.mark.parametrize("pool", ["processes", "threads", "solo"])
def test_each_final_failure_is_one_dead_letter_and_a_failed_run(
    app_database: Database, valkey: Server, tmp_path: Path, pool: str
) -> None:
    env = {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url}
    env |= {"WORKER_MAX_STALLS": "0", "WORKER_QUEUE_STALLED_INTERVAL": "5000"}
    has_limit = pool not in POOLS_WITHOUT_LIMIT
    with worker(tmp_path, env, "worker", "-P", pool, "-c", "2") as working:
        assert bool(working.children()) == (pool == "processes"), "the pool is the one that was asked for"
        wanted = send_all(valkey)
        late, done = str(records_app.late.delay().id), str(records_app.greet.delay(name="Ada", token="hunter2").id)
        if has_limit:
            wanted[late] = "time_limit"
        wait_for(lambda: ended(app_database) >= {*wanted, late, done}, LIMIT, "all have ended", working.tail)
        wanted[lose_the_worker(working, pool)] = "worker_lost" if pool == "processes" else "stalled"
        wait_for(lambda: ended(app_database) >= set(wanted), LIMIT, "the last one has ended", working.tail)
        wait_for(lambda: not left(valkey), LIMIT, "the broker is empty", lambda: str(left(valkey)))

    with app_database.session() as session:
        letters = session.exec(select(DeadLetter.run_id, DeadLetter.reason)).all()
        states = dict(session.exec(select(Run.id, Run.state).where(Run.task != "dead_letter.bury")).all())
        run, (attempt,) = find_run(session, done), attempts_of(session, done)
    assert sorted(letters) == sorted(wanted.items()), "one for each"
    assert states == {**dict.fromkeys({late, done}, "succeeded"), **dict.fromkeys(wanted, "failed")}
    assert run is not None
    assert (run.task, run.queue, run.attempts) == ("records.greet", "celery", 1)
    assert run.args == {"name": "Ada", "token": "***", "diary": None}
    assert (attempt.state, attempt.worker) == ("succeeded", "worker@test")


def send_all(valkey: Server) -> dict[str, str]:
    """Send one of each that fails in every pool alike; return the reasons by run."""
    with valkey.client() as client:
        client.hset(f"taskyard:message:{BROKEN}", "m", b"\xff\xfe not json")
        client.hset(f"taskyard:message:{BROKEN}", mapping={"q": "celery", "p": "5", "i": BROKEN, "n": BROKEN, "t": "1"})
        client.zadd("taskyard:waiting:celery", {BROKEN: 1})
    sent = {
        "exhausted": records_app.mixed.delay(fate="exhausted", folder=".", name="x"),
        "permanent": records_app.mixed.delay(fate="permanent", folder=".", name="x"),
        "unknown_task": app.send_task("records.nothing", kwargs={}),
        "invalid_payload": app.send_task("records.mixed", kwargs={"fate": 17}),
    }
    return {BROKEN: "malformed"} | {str(run.id): reason for reason, run in sent.items()}


def lose_the_worker(working: Worker, pool: str) -> str:
    """Send a task that kills its process; where that is the whole worker, start another."""
    run_id = str(records_app.die.delay().id)
    if pool != "processes":
        assert wait_for(lambda: working.exit_code, LIMIT, "the worker died") == -signal.SIGKILL
        working.start(wait_ready=False)
    return run_id


def ended(database: Database) -> set[str]:
    with database.session() as session:
        return set(session.exec(select(Run.id).where(col(Run.state).in_(FINAL_STATES))).all())


def left(valkey: Server) -> list[str]:
    """What still waits or runs, letters included."""
    with valkey.client() as client:
        return [str(key) for key in client.scan_iter("taskyard:message:*", count=1000)]
