"""TASKYARD_SCHEMA: the library's tables in a PostgreSQL schema of their own, found from any session."""

import json
import os
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from tests.databases import DatabaseServers
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, ROOT, Worker

EMIT = """
import os

from sqlmodel import Session, create_engine

import tasks.app
from taskyard import emit
from taskyard.tasks.records.tasks import cleanup

with Session(create_engine(os.environ["DATABASE_URL"])) as session, session.begin():  # of the app's own, on `public`
    emit(session, "market.closed", {"market_id": "m"})
print(cleanup.delay().id)
"""


def test_the_tables_are_in_their_schema_and_an_apps_own_session_finds_them(
    database_servers: DatabaseServers, valkey: Server, tmp_path: Path
) -> None:
    url = database_servers.make("postgresql", migrated=False)
    ours = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "TASKYARD_SCHEMA": "jobs"}
    environment = {**os.environ, **ours, "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> str:
        ended = subprocess.run(
            [sys.executable, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run("-m", "celery", "-A", "tasks", "db", "upgrade")
    with Worker("tasks", tmp_path, arguments=MINIMAL, env=environment) as worker:
        run_id = run("-c", EMIT).strip()
        listing = ("-m", "celery", "-A", "tasks", "jobs", "show", run_id, "--json")
        wait_for(lambda: json.loads(run(*listing))["state"] == "succeeded", 60, "it ran", worker.tail)
    engine = sa.create_engine(url)
    found = sa.inspect(engine)
    assert [name for name in found.get_table_names("public") if name.startswith("taskyard_")] == []
    assert {"taskyard_runs", "taskyard_webhook_events", "taskyard_alembic_version"} <= set(
        found.get_table_names("jobs")
    )
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM jobs.taskyard_webhook_events")).scalar() == 1
    engine.dispose()
    database_servers.drop(url)
