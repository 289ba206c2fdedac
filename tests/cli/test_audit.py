"""`audit`: what it prints, what it deletes, and that it writes as a process of its own."""

import json
import signal
from datetime import timedelta

import pytest
import redis
from sqlalchemy import func
from sqlmodel import Session, select

from taskyard.database.columns import utc_now
from taskyard.database.engine import open_engine
from taskyard.history.models import Run
from taskyard.history.operator_log import Operation
from taskyard.history.writer.event_writer import EventWriter
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.fixtures.celery_command import CeleryCommand
from tests.history.event_streams import PREFIX, append, append_life
from tests.servers import Server
from tests.waiting import wait_for


@pytest.fixture
def history(valkey: Server, database: Database) -> None:
    """Two runs of 2026 that ended."""
    with redis.Redis.from_url(valkey.url) as client:
        append_life(client, "run-1")
        append(client, "queued", "run-2", args={"name": "Grace", "token": "***"})
        append(client, "failed", "run-2", after_ms=900)
        EventWriter(client, database.engine, PREFIX).drain()


def operations(database: Database) -> list[Operation]:
    with database.session() as session:
        return list(session.exec(select(Operation)).all())


@pytest.mark.usefixtures("history")
def test_stats_say_how_many_ended_and_how_well(command: Command) -> None:
    span = ("--since", "2026-09-21T14:00", "--until", "2026-09-21T15:00")
    (item,) = json.loads(command("audit", "stats", "--json", *span).stdout)["items"]

    assert (item["task"], item["queue"], item["ended"], item["success_rate"]) == ("records.greet", "celery", 2, 0.5)
    assert item["wait"]["p50"] == 100
    assert "50.0 %" in command("audit", "stats", "--by", "queue", *span).stdout


@pytest.mark.usefixtures("history")
def test_an_export_is_one_json_object_a_line(command: Command) -> None:
    lines = [json.loads(line) for line in command("audit", "export").stdout.splitlines()]
    (failed,) = command("audit", "export", "--state", "failed").stdout.splitlines()

    assert {line["id"]: len(line["attempt_list"]) for line in lines} == {"run-1": 2, "run-2": 1}
    assert json.loads(failed)["args"]["token"] == "***"


@pytest.mark.usefixtures("history")
def test_a_prune_is_foretold_done_counted_and_logged(command: Command, database: Database) -> None:
    age = utc_now() - timedelta(days=5)
    with database.session() as session:
        for name in ("run-1", "run-2"):
            run = session.get(Run, name)
            assert run is not None
            run.finished_at = age
            session.add(run)
        session.commit()
    kept = command("audit", "prune", "--yes", "--json")
    foretold = json.loads(command("audit", "prune", "--older-than", "4d", "--dry-run", "--json").stdout)
    done = json.loads(command("audit", "prune", "--older-than", "4d", "--yes", "--reason", "full", "--json").stdout)

    assert json.loads(kept.stdout)["runs"] == 0
    assert (foretold["runs"], foretold["attempts"], foretold["dry_run"]) == (2, 3, True)
    assert (done["runs"], done["attempts"], done["dry_run"]) == (2, 3, False)
    assert sorted((row.verb, row.count) for row in operations(database)) == [("audit prune", 0), ("audit prune", 5)]
    (row, _) = json.loads(command("audit", "ls", "--json").stdout)["items"]
    assert (row["verb"], row["count"], row["reason"]) == ("audit prune", 5, "full")


def test_a_prune_that_was_not_confirmed_or_keeps_all_does_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_LOG_RETENTION_DAYS", "0")

    assert command("audit", "prune").exit_code == 2
    assert "--older-than" in command("audit", "prune", "--yes").stderr
    assert command("audit", "prune", "--older-than", "soon", "--yes").exit_code == 2


@pytest.mark.parametrize("filters", [("--who", "nobody-of-this-name"), ("--verb", "jobs"), ("--until", "2020-01-01")])
def test_filters_of_the_operator_log(command: Command, filters: tuple[str, str]) -> None:
    command("audit", "prune", "--yes")

    assert len(json.loads(command("audit", "ls", "--json", "--verb", "audit").stdout)["items"]) == 1
    assert json.loads(command("audit", "ls", "--json", *filters).stdout)["items"] == []
    assert command("audit", "ls").exit_code == 0


def test_the_writer_runs_as_a_process_of_its_own_until_it_is_told_to_stop(
    celery: CeleryCommand, valkey: Server
) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        append_life(client, "run-1")
        process = celery.start("audit", "write")
        try:
            engine = open_engine(celery.env["DATABASE_URL"])
            with Session(engine) as session:

                def is_written() -> bool:
                    session.rollback()
                    return session.exec(select(func.count()).where(Run.state == "succeeded")).one() == 1

                wait_for(is_written, 60, "the run is in SQL")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()
            engine.dispose()
        assert not client.exists("taskyard:events:writer"), "the lease was given back"


@pytest.mark.timeout(300)
def test_what_the_broker_never_got_leaves_no_row(celery: CeleryCommand) -> None:
    """The log would say that somebody compared with the chain, while nothing was enqueued."""
    away = CeleryCommand({**celery.env, "REDIS_URL": "redis://127.0.0.1:1/0"})
    answer = away("recon", "run")

    assert (answer.code, "set REDIS_URL" in answer.err) == (1, True)
    assert celery("audit", "ls", "--json").json["items"] == []
