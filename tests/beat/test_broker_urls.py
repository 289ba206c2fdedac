"""BeatProcess's own connections on each kind of broker URL: TLS, a unix socket, Sentinel with a fail-over."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from taskyard.beat import catalog
from tests.beat.beat_platform import BeatPlatform, gaps
from tests.databases import Database
from tests.servers import Sentinel, Server, TlsServer
from tests.waiting import wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
FAILOVER_LIMIT = 30  # seconds; the sentinel's own decision takes most of it


def test_beat_leads_and_fires_over_tls(database: Database, tmp_path: Path) -> None:
    with TlsServer(tmp_path / "tls") as server, BeatPlatform(server, database, tmp_path) as platform:
        fires_at(platform, server.tls_url)


def test_beat_leads_and_fires_over_a_unix_socket(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        Server(tmp_path / "server", options=["--unixsocket", str(path)]) as server,
        BeatPlatform(server, database, tmp_path) as platform,
    ):
        fires_at(platform, f"unix://{path}")


def fires_at(platform: BeatPlatform, url: str) -> None:
    platform.add()
    beat = platform.beat(REDIS_URL=url)
    platform.wait_led_by(beat)
    platform.wait_fires(3, "published")
    platform.end(beat)
    platform.check_books()


def test_beat_follows_a_fail_over_and_no_slot_comes_twice(database: Database, tmp_path: Path) -> None:
    """The lease may be lost with the master; the token in the database still shuts an older leader out."""
    master = Server(tmp_path / "master").start()
    replica = Server(tmp_path / "replica", options=["--replicaof", "127.0.0.1", str(master.port)]).start()
    sentinel = Sentinel(tmp_path / "sentinel", master.port)
    url = f"sentinel://127.0.0.1:{sentinel.port}/0?master_name=mymaster"
    try:
        with BeatPlatform(replica, database, tmp_path) as platform:
            platform.add(misfire="run_all", misfire_limit=100)
            beats = [platform.beat(name, REDIS_URL=url) for name in ("one", "two")]
            platform.wait_fires(3, "published", limit=60)
            with master.client() as one, replica.client() as two:
                wait_for(lambda: offset(two) >= offset(one), 20, "all is replicated")
                master.kill()
                wait_for(lambda: two.info("replication")["role"] == "master", FAILOVER_LIMIT, "the replica took over")
            took_over_at = time.monotonic()
            platform.wait_fires(platform.schedule().fired + 5, "published")
            assert time.monotonic() - took_over_at < 15
            platform.end(*beats)
            assert gaps(platform.fires("job", "published")) == {timedelta(seconds=1)}, "a slot was left out"
            assert set(platform.enqueued().values()) == {1}
    finally:
        sentinel.stop()
        replica.stop()
        master.stop()


def offset(client: redis.Redis) -> int:
    """How far a server has come with its log of writes."""
    info: Any = client.info("replication")
    return int(info["master_repl_offset"] if info["role"] == "master" else info["slave_repl_offset"])


def test_stock_kombu_is_sent_nothing_that_the_task_refuses(database: Database, valkey: Server, tmp_path: Path) -> None:
    """It takes no message that was made ahead, so the arguments are checked by themselves; the others are sent."""
    with BeatPlatform(valkey, database, tmp_path) as platform:
        for name in ("job", "wrong"):
            platform.add(name)
        with database.session() as session, session.begin():
            catalog.find(session, "wrong").args = {"label": 5}
        beat = platform.beat(TASKYARD_TRANSPORT="redis")
        platform.wait_fires(3, "published")
        [refused, *_] = platform.wait_fires(1, "refused", name="wrong")
        assert "label" in str(refused.error)
        platform.end(beat)
        assert not platform.fires("wrong", "published")
