"""Runs whose messages the broker lost: found, told by `doctor`, and closed; all others are left alone."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from sqlmodel import select

from taskyard.database.engine import current_engine, open_session
from taskyard.history.operator_log import Operation
from taskyard.history.queries.lost_runs import HistoryBehindError, LostRuns
from taskyard.history.queries.runs import RunFilter, find_run
from taskyard.history.writer.event_writer import EventWriter
from tests.fixtures.applications import Command
from tests.history.event_streams import PREFIX, append
from tests.history.records_app import greet
from tests.servers import Server


@pytest.fixture
def client(command: Command, valkey: Server) -> Iterator[redis.Redis]:  # noqa: ARG001 - it sets the environment
    with redis.Redis.from_url(valkey.url) as connected:
        yield connected


def write_events(client: redis.Redis) -> None:
    EventWriter(client, current_engine(), PREFIX).drain()


def send(client: redis.Redis, number: int) -> list[str]:
    """Enqueue and record so many runs."""
    ids = [str(greet.delay(name=f"name {index}").id) for index in range(number)]
    write_events(client)
    return ids


def forget(client: redis.Redis, run_id: str) -> None:
    """As a fail-over does to what was not copied yet."""
    assert client.delete(f"{PREFIX}message:{run_id}") == 1
    assert client.zrem(f"{PREFIX}waiting:celery", run_id) == 1


def lost(command: Command, *options: str) -> list[str]:
    answer = json.loads(command("jobs", "lost", "--json", *options).stdout)
    assert answer["count"] == len(answer["items"])
    return sorted(item["id"] for item in answer["items"])


def test_only_what_the_broker_does_not_have_is_lost(command: Command, client: redis.Redis) -> None:
    ids = send(client, 4)
    assert lost(command) == []
    forget(client, ids[1])
    assert lost(command) == [ids[1]]
    assert lost(command, "--queue", "maintenance") == []
    client.flushall()
    assert lost(command) == sorted(ids)
    assert lost(command, "--state", "running") == []


def test_doctor_tells_of_lost_runs(command: Command, client: redis.Redis) -> None:
    def finding() -> tuple[str, str]:
        found = json.loads(command("doctor", "--json").stdout)["findings"]
        (runs,) = (each for each in found if each["name"] == "runs")
        return runs["verdict"], runs["fix"]

    (run_id,) = send(client, 1)
    assert finding() == ("ok", "")
    forget(client, run_id)
    assert finding() == ("warning", "celery -A tasks jobs lost")


def test_lost_runs_are_closed_with_a_reason(command: Command, client: redis.Redis) -> None:
    kept, gone = send(client, 2)
    forget(client, gone)
    for refused in (["--yes"], []):
        assert command("jobs", "close-lost", *refused).exit_code == 2
    would = json.loads(command("jobs", "close-lost", "--dry-run", "--json").stdout)
    assert (would["count"], would["dry_run"]) == (1, True)
    assert lost(command) == [gone]

    done = command("jobs", "close-lost", "--yes", "--reason", "the broker was emptied", "--json")

    assert json.loads(done.stdout)["count"] == 1
    write_events(client)
    with open_session() as session:
        found, other = find_run(session, gone), find_run(session, kept)
        (row,) = session.exec(select(Operation)).all()
    assert found is not None
    assert other is not None
    assert (found.state, other.state) == ("cancelled", "queued")
    assert (found.error_message or "").endswith("the broker was emptied")
    assert found.finished_at is not None
    assert (row.verb, row.count, row.reason) == ("jobs close-lost", 1, "the broker was emptied")
    assert lost(command) == []


def test_a_run_that_ends_at_this_moment_is_not_lost(command: Command, client: redis.Redis) -> None:  # noqa: ARG001 - as above
    """Its message is gone, and its end on the way to SQL: the writer is waited for."""
    (run_id,) = send(client, 1)
    forget(client, run_id)
    append(client, "succeeded", run_id)
    writer = EventWriter(client, current_engine(), PREFIX)
    thread = threading.Thread(target=writer.run)
    found: list[str] = []

    def find() -> None:
        found.extend(run.id for run in LostRuns(open_session, client, PREFIX).find(RunFilter()))

    finder = threading.Thread(target=find)
    finder.start()
    thread.start()
    finder.join(30)
    writer.stop()
    thread.join(30)
    assert not finder.is_alive()
    assert found == []


def test_without_a_writer_nobody_can_tell(command: Command, client: redis.Redis) -> None:  # noqa: ARG001 - as above
    (run_id,) = send(client, 1)
    forget(client, run_id)
    append(client, "succeeded", run_id)
    with pytest.raises(HistoryBehindError, match="1 events are not in SQL yet"):
        list(LostRuns(open_session, client, PREFIX, timedelta(0)).find(RunFilter()))


def test_what_cannot_be_lost_is_a_usage_error(command: Command, client: redis.Redis) -> None:  # noqa: ARG001 - as above
    answer = command("jobs", "lost", "--state", "succeeded")
    assert (answer.exit_code, "queued, scheduled, running, retrying" in answer.stderr) == (2, True)
