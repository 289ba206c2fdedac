"""The audit writer on real servers: nothing lost, nothing counted twice, one at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import func, text
from sqlmodel import select
from structlog.testing import CapturingLogger

from taskyard.database.engine import open_engine
from taskyard.history.events import CONSUMER, GROUP, stream_key
from taskyard.history.models import Attempt, Run
from taskyard.history.queries.runs import attempts_of, find_run
from taskyard.history.writer import event_writer
from taskyard.history.writer.event_writer import EventWriter, WriterTuning, backlog, backlog_age
from tests.databases import Database, Postgres, migrate
from tests.history.event_streams import PREFIX, append, append_life, append_many
from tests.servers import Server
from tests.waiting import stays_true, wait_for

STREAM = stream_key(PREFIX)
HURRIED = WriterTuning(
    block=timedelta(milliseconds=50),
    gather=timedelta(milliseconds=10),
    lease=timedelta(milliseconds=700),
    standby=timedelta(milliseconds=50),
    longest_pause=timedelta(milliseconds=200),
)


@pytest.fixture
def client(valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as connected:
        yield connected


@contextmanager
def writing(writer: EventWriter) -> Iterator[None]:
    thread = threading.Thread(target=writer.run)
    thread.start()
    yield
    writer.stop()
    thread.join(10)
    assert not thread.is_alive()


def runs_in(database: Database) -> int:
    with database.session() as session:
        return session.exec(select(func.count()).select_from(Run)).one()


def test_events_become_rows_and_leave_the_stream(client: redis.Redis, database: Database) -> None:
    append_life(client, "run-1")
    with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
        wait_for(lambda: backlog(client, PREFIX) == 0, 10, "the stream is empty")

    with database.session() as session:
        run = find_run(session, "run-1")
        assert run is not None
        assert (run.state, run.attempts, run.error_type) == ("succeeded", 2, "TimeoutError")
        assert [attempt.state for attempt in attempts_of(session, "run-1")] == ["retrying", "succeeded"]
    assert pending(client) == 0


def test_a_full_server_is_emptied(client: redis.Redis, database: Database) -> None:
    """Events may be what fills it: a writer that needed memory for its lease would never trim the stream."""
    append_life(client, "run-1")
    client.xadd(STREAM, {"e": "exploded", "id": "run-2", "q": "celery", "n": "1", "at": "1790000000000"})
    client.config_set("maxmemory", 1)
    try:
        with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
            wait_for(lambda: backlog(client, PREFIX) == 0, 10, "the stream is empty")
            stays_true(lambda: client.exists(f"{STREAM}:writer"), 1, "the writer keeps its lease")
    finally:
        client.config_set("maxmemory", 0)
    assert (runs_in(database), client.xlen(f"{STREAM}:refused")) == (1, 1)


def test_what_a_dead_writer_had_read_is_written_by_the_next(client: redis.Redis, database: Database) -> None:
    """Killed between its read and its commit: the entries are pending, and no longer new."""
    append_life(client, "run-1")
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=3)
    with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
        wait_for(lambda: backlog(client, PREFIX) == 0, 10, "the stream is empty")

    with database.session() as session:
        assert len(attempts_of(session, "run-1")) == 2


def test_entries_that_were_committed_but_not_acknowledged_count_once(client: redis.Redis, database: Database) -> None:
    append(client, "queued", "run-1")
    append(client, "snoozed", "run-1")
    entries: Any = client.xrange(STREAM)
    EventWriter(client, database.engine, PREFIX).drain()
    for entry_id, fields in entries:
        client.xadd("again:events", fields, id=entry_id)
    EventWriter(client, database.engine, "again:").drain()

    with database.session() as session:
        assert [attempt.snoozes for attempt in attempts_of(session, "run-1")] == [1]


def test_only_one_of_two_writers_reads_and_the_other_takes_over(client: redis.Redis, database: Database) -> None:
    first, second = (EventWriter(client, database.engine, PREFIX, HURRIED) for _ in range(2))
    with writing(second):
        wait_for(lambda: client.get(f"{STREAM}:writer"), 5, "one holds the lease")
        holder = client.get(f"{STREAM}:writer")
        with writing(first):
            append(client, "queued", "run-1")
            wait_for(lambda: runs_in(database) == 1, 10, "the run is written")
            stays_true(lambda: client.get(f"{STREAM}:writer") == holder, 0.5, "the lease stays where it is")
            second.stop()
            wait_for(lambda: client.get(f"{STREAM}:writer") not in {None, holder}, 5, "the other leads")
            append(client, "queued", "run-2")
            wait_for(lambda: runs_in(database) == 2, 10, "the other writes")


def test_the_lease_of_a_killed_writer_ends_by_itself(client: redis.Redis, database: Database) -> None:
    client.set(f"{STREAM}:writer", "somebody who died", px=700)
    append(client, "queued", "run-1")
    with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
        wait_for(lambda: runs_in(database) == 1, 10, "the run is written")


def test_an_entry_that_no_table_can_hold_is_put_aside_and_the_others_are_written(
    client: redis.Redis, database: Database
) -> None:
    append(client, "queued", "run-1")
    client.xadd(STREAM, {"e": "queued", "id": "run-2", "q": "celery", "n": "many", "at": "today"})
    client.xadd(STREAM, {"e": "exploded", "id": "run-3", "q": "celery", "n": "1", "at": "1790000000000"})
    client.xadd(STREAM, {"e": "started", "id": "", "q": "celery", "n": "1", "at": "1790000000000"})
    append(client, "queued", "run-4")
    EventWriter(client, database.engine, PREFIX).drain()

    assert runs_in(database) == 2
    assert client.xlen(f"{STREAM}:refused") == 3
    assert backlog(client, PREFIX) == 0


def test_texts_that_a_database_refuses_are_cleaned_and_bounded(client: redis.Redis, database: Database) -> None:
    """PostgreSQL refuses NUL; UTF-8 refuses lone surrogates; both can be in a JSON text."""
    append(client, "queued", "run-1", args={"note": "a\0b\ud800"}, user_id="u" * 999)
    append(client, "failed", "run-1", error="E" * 999, message="m\0" * 9999, traceback="t\n" * 99_999)
    EventWriter(client, database.engine, PREFIX).drain()

    with database.session() as session:
        run, (attempt,) = find_run(session, "run-1"), attempts_of(session, "run-1")
        assert run is not None
        assert run.args == {"note": "a\ufffdb?"}
        assert len((run.error_message or "").encode()) <= 4096
        assert len((attempt.traceback or "").encode()) <= 16_384
        assert len(run.user_id or "") == len(run.error_type or "") == 255


def test_a_flushed_broker_does_not_end_the_writer(client: redis.Redis, database: Database) -> None:
    with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
        append(client, "queued", "run-1")
        wait_for(lambda: runs_in(database) == 1, 10, "the run is written")
        client.flushall()
        append(client, "queued", "run-2")
        wait_for(lambda: runs_in(database) == 2, 10, "the next run is written")


def test_a_killed_broker_delays_events_and_loses_none(valkey: Server, client: redis.Redis, database: Database) -> None:
    with writing(EventWriter(client, database.engine, PREFIX, HURRIED)):
        append_life(client, "run-1")
        valkey.kill()
        valkey.start()
        append(client, "queued", "run-2")
        wait_for(lambda: runs_in(database) == 2, 15, "both runs are written")


def test_a_database_outage_delays_events_loses_none_and_is_logged_once(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = CapturingLogger()
    monkeypatch.setattr(event_writer, "log", said)
    postgres = Postgres()
    try:
        url = postgres.start().url.render_as_string(hide_password=False)
        migrate(url)
        engine = open_engine(url)
        with writing(EventWriter(client, engine, PREFIX, HURRIED)):
            append_life(client, "run-1")
            wait_for(lambda: backlog(client, PREFIX) == 0, 10, "the stream is empty")
            postgres.stop()
            for number in range(2, 52):
                append_life(client, f"run-{number}")
            stays_true(lambda: backlog(client, PREFIX) == 250, 1.5, "nothing leaves the stream")
            postgres.start()
            wait_for(lambda: backlog(client, PREFIX) == 0, 20, "the stream is empty again")
        with engine.connect() as connection:
            assert (
                connection.execute(text("SELECT count(*) FROM taskyard_runs WHERE state = 'succeeded'")).scalar() == 51
            )
            assert connection.execute(text("SELECT count(*) FROM taskyard_attempts")).scalar() == 102
        engine.dispose()
    finally:
        postgres.remove()
    assert [call.args for call in said.calls].count(("audit.database_down",)) == 1


def test_a_waiting_writer_stops_within_a_second(client: redis.Redis, database: Database) -> None:
    writer = EventWriter(client, database.engine, PREFIX)
    thread = threading.Thread(target=writer.run)
    thread.start()
    wait_for(lambda: client.exists(f"{STREAM}:writer"), 5, "it leads")
    writer.stop()
    thread.join(1)

    assert not thread.is_alive()
    assert not client.exists(f"{STREAM}:writer"), "the lease is given back at once"


def test_each_attempt_has_one_row_whatever_two_writers_do_at_once(client: redis.Redis, database: Database) -> None:
    """A writer that lost its lease in the middle of a write folds the same entries as its successor."""
    for number in range(100):
        append_life(client, f"run-{number}")
    entries: Any = client.xrange(STREAM)
    for entry_id, fields in entries:
        client.xadd("again:events", fields, id=entry_id)
    threads = [
        threading.Thread(target=EventWriter(client, database.engine, prefix, WriterTuning(batch=40)).drain)
        for prefix in (PREFIX, "again:")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with database.session() as session:
        assert session.exec(select(func.count()).select_from(Attempt)).one() == 200
        assert session.exec(select(func.count()).where(Run.state == "succeeded")).one() == 100


@pytest.mark.chaos
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_120000_events_of_a_long_outage_are_all_written_later(client: redis.Redis, database: Database) -> None:
    append_many(client, 120_000)
    EventWriter(client, database.engine, PREFIX).drain()

    assert runs_in(database) == 120_000
    assert backlog(client, PREFIX) == 0
    assert backlog_age(client, PREFIX) == timedelta(0)


def test_more_events_than_the_stream_once_kept_wait_for_a_database_that_is_away(client: redis.Redis) -> None:
    """Nobody but the writer trims; a cap of 100,000 once lost the oldest."""
    append_many(client, 110_000)

    assert backlog(client, PREFIX) == 110_000
    assert backlog_age(client, PREFIX) > timedelta(0)


def test_what_is_not_written_is_never_trimmed(client: redis.Redis, database: Database) -> None:
    """Entries in the hands of another writer are older than those that this one acknowledges."""
    for number in range(6):
        append(client, "queued", f"run-{number}")
    client.xgroup_create(STREAM, GROUP, id="0")
    client.xreadgroup(GROUP, "somebody else", {STREAM: ">"}, count=2)
    EventWriter(client, database.engine, PREFIX).drain()

    assert (runs_in(database), backlog(client, PREFIX)) == (4, 6)


def pending(client: redis.Redis) -> int:
    summary: Any = client.xpending(STREAM, GROUP)
    return int(summary["pending"])
