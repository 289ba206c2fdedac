"""What a handler logs is kept with its attempt, bounded; how far it has come is told; both are shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from taskyard.broker.server.client import shared_client
from taskyard.history.queries.runs import find_run
from taskyard.history.task_logs import EVENTS_KEPT, lines_of
from taskyard.history.writer.event_writer import EventWriter
from taskyard.tasks.reporting import MOST_LINES, progress
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.history import records_app
from tests.history.event_streams import PREFIX, append
from tests.monitor.scraping import worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 40  # seconds


def lines(database: Database, run_id: str, attempt: int | None = None) -> list[dict[str, Any]]:
    with database.session() as session:
        return [{"attempt": number, **line} for _, number, line in lines_of(session, run_id, attempt=attempt)]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_lines_and_progress_of_each_attempt_are_kept(
    app_database: Database, valkey: Server, tmp_path: Path, command: Command, pool: str
) -> None:
    env = {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url}
    with worker(tmp_path, env, "worker", "-P", pool, "-c", "2"):
        failed = str(records_app.chat.delay(lines=3, fail=True, secret="hunter2").id)
        long = str(records_app.chat.delay(lines=MOST_LINES + 100).id)
        wait_for(lambda: len(lines(app_database, failed)) == 6, LIMIT, "both attempts' lines are kept")
        wait_for(lambda: len(lines(app_database, long)) == MOST_LINES + 1, LIMIT, "a long one is cut")
        wait_for(
            lambda: progress_of(app_database, long) == MOST_LINES + 100, LIMIT, "the last word of progress is kept"
        )

    first = lines(app_database, failed, 1)
    assert [line["message"] for line in first] == ["line 0\x1b[2J", "chat.line number=1", "line 2\x1b[2J"]
    assert [line["level"] for line in first] == ["warning", "info", "warning"]
    assert {line["logger"] for line in first} == {"records.chat"}
    assert lines(app_database, long)[-1]["message"] == "100 more lines were not kept"
    shown = command("jobs", "logs", failed)
    assert shown.stdout.count("chat.line number=1") == 2
    assert "\x1b" not in shown.stdout
    assert len(json.loads(command("jobs", "logs", failed, "--attempt", "2", "--json").stdout)["items"]) == 3
    assert command("jobs", "logs", failed, "--follow").stdout == shown.stdout, "it has ended"
    assert "300 of 300 (100 %) lines" in command("jobs", "show", long).stdout
    assert "hunter2" not in shown.output + command("jobs", "show", failed).output


def progress_of(database: Database, run_id: str) -> int | None:
    with database.session() as session:
        run = find_run(session, run_id)
        return run.progress["done"] if run and run.progress else None


def test_logs_of_an_attempt_are_bounded_however_often_it_is_snoozed(app_database: Database, valkey: Server) -> None:
    client = shared_client(valkey.url)
    for number in range(EVENTS_KEPT + 10):
        append(client, "logged", "run-1", lines=[{"message": str(number)}])
    append(client, "logged", "run-1", lines="no list")
    EventWriter(client, app_database.engine, PREFIX).drain()

    kept = lines(app_database, "run-1")
    assert (len(kept), kept[-1]["message"]) == (EVENTS_KEPT - 1, str(EVENTS_KEPT + 9))
    with app_database.session() as session:
        assert find_run(session, "run-1") is None, "a line makes no run"


def test_a_word_of_progress_changes_nothing_else(app_database: Database, valkey: Server) -> None:
    client = shared_client(valkey.url)
    append(client, "queued", "run-1")
    append(client, "progress", "run-1", done=1, total=3)
    append(client, "succeeded", "run-1")
    append(client, "progress", "run-1", done=2, total=3)
    EventWriter(client, app_database.engine, PREFIX).drain()

    with app_database.session() as session:
        run = find_run(session, "run-1")
        assert run is not None
        assert (run.state, run.progress["done"]) == ("succeeded", 2)


def test_progress_outside_a_handler_does_nothing() -> None:
    progress(1, 2, "nobody listens")
