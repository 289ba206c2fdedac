"""`/metrics`, `/healthz` and `/readyz` of real workers and a real beat that share a port."""

from pathlib import Path

import pytest
import redis

from taskyard.database.engine import current_engine
from taskyard.monitor.doctor import examine
from taskyard.settings.loading import current_settings
from tests.databases import Database
from tests.history import records_app
from tests.monitor.scraping import beating, fetch, free_port, value, worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 40  # seconds
GREET = {"task": "records.greet", "queue": "celery"}


def environment(app_database: Database, valkey: Server, folder: Path, port: int, **more: str) -> dict[str, str]:
    known = {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url, "TASKYARD_DATA": str(folder / "data")}
    return {**known, "METRICS_PORT": str(port), **more}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_workers_and_beat_share_a_port_and_a_killed_one_falsifies_nothing(
    app_database: Database, valkey: Server, tmp_path: Path
) -> None:
    port = free_port()
    env = environment(app_database, valkey, tmp_path, port)
    first, second = (worker(tmp_path, env, name) for name in ("first", "second"))
    with first, second, beating(tmp_path, env):
        for name in ["Ada"] * 20 + ["nobody"] * 3:
            records_app.greet.delay(name=name)

        def done(outcome: str) -> float:
            return value(port, "taskyard_tasks_total", outcome=outcome, **GREET)

        wait_for(lambda: (done("succeeded"), done("failed")) == (20, 3), LIMIT, "all are counted, once")
        wait_for(lambda: value(port, "taskyard_task_wait_seconds_count", **GREET) == 23, LIMIT, "their waits, too")
        wait_for(lambda: value(port, "taskyard_beat_leader") == 1, LIMIT, "beat's numbers are there")
        wait_for(lambda: value(port, "taskyard_dead_letters", queue="celery") == 3, LIMIT, "the letters are counted")
        wait_for(lambda: value(port, "taskyard_workers") == 2, LIMIT, "both workers are seen")
        with redis.Redis.from_url(valkey.url) as client:
            found = examine(client, current_engine(), current_settings())
        # Other tests declare tasks in this process; the three dead letters are what the test made.
        ours = [each for each in found if each.name not in {"time limits", "dead letters"}]
        assert [each for each in ours if each.verdict != "ok"] == [], "a deployment that is whole has no finding"
        first.kill()
        wait_for(lambda: fetch(port, "/healthz")[0] == 200, LIMIT, "another process answers")
        assert (done("succeeded"), done("failed")) == (20, 3)
        assert value(port, "taskyard_task_duration_seconds_count", **GREET) == 23
        records_app.greet.delay(name="Grace")
        wait_for(lambda: done("succeeded") == 21, LIMIT, "counting goes on")
