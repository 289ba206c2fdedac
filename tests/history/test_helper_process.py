"""The writer's helper: a process that writes while much waits, and that may die at any moment."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis
from sqlmodel import func, select

from taskyard.history.events import CONSUMER, GROUP, stream_key
from taskyard.history.models import Run
from taskyard.history.writer.event_writer import BESIDE_WORK, EventWriter, backlog
from taskyard.history.writer.helper_process import WriterHelper
from tests.databases import Database
from tests.history.event_streams import PREFIX, append, append_many
from tests.monitor.scraping import worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 60  # seconds; the machine may be busy
MUCH = 6000  # runs
pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def client(valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as connected:
        yield connected


def helpers(pid: int) -> list[psutil.Process]:
    """Those that a process has started."""
    return [
        child for child in psutil.Process(pid).children() if "taskyard.history.writer.helper_process" in child.cmdline()
    ]


def written(database: Database) -> int:
    with database.session() as session:
        return session.exec(select(func.count()).select_from(Run)).one()


def test_what_a_killed_helper_leaves_is_written_by_the_thread(app_database: Database, client: redis.Redis) -> None:
    append_many(client, MUCH)
    tuning = replace(BESIDE_WORK, share=0.5)
    writer = EventWriter(client, app_database.engine, PREFIX, tuning, delegate=WriterHelper().work)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        wait_for(lambda: helpers(os.getpid()), LIMIT, "the helper runs")
        (helper,) = helpers(os.getpid())
        wait_for(lambda: written(app_database) > BESIDE_WORK.batch, LIMIT, "it writes")
        helper.suspend()
        append_many(client, MUCH)  # the same runs once more
        client.xreadgroup(GROUP, CONSUMER, {stream_key(PREFIX): ">"}, count=10)  # as one that dies before it writes
        helper.kill()
        append(client, "queued", "one more")
        wait_for(lambda: backlog(client, PREFIX) == 0, LIMIT, "the stream is empty")
    finally:
        writer.stop()
        thread.join(10)
    assert written(app_database) == MUCH + 1
    assert not client.exists("taskyard:events:writer"), "the lease was given back"


def test_a_helper_ends_with_its_writer(app_database: Database, client: redis.Redis) -> None:
    append_many(client, MUCH)
    writer = EventWriter(client, app_database.engine, PREFIX, BESIDE_WORK, delegate=WriterHelper().work)
    thread = threading.Thread(target=writer.run)
    thread.start()
    wait_for(lambda: helpers(os.getpid()), LIMIT, "the helper runs")
    writer.stop()
    thread.join(10)

    assert not thread.is_alive()
    assert not helpers(os.getpid())


def test_a_killed_worker_takes_its_helper_along(
    app_database: Database, valkey: Server, client: redis.Redis, tmp_path: Path
) -> None:
    append_many(client, MUCH)
    with worker(tmp_path, {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url}) as working:
        wait_for(lambda: helpers(working.pid), LIMIT, "the helper runs", working.tail)
        (helper,) = helpers(working.pid)
        os.kill(working.pid, signal.SIGKILL)
        wait_for(lambda: not helper.is_running(), LIMIT, "it is gone")
