"""A server that answers and refuses to work: a replica, too few replicas, a full disk, a fail-over behind a name."""

import gc
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError

from taskyard.broker.scripts.failover import with_reconnect_on_refusal
from taskyard.broker.server.client import open_client
from tests.broker.harness import POOLS, BrokerHarness
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import stays_true, wait_for

HOW = {"replica": "read only", "replicas": "NOREPLICAS"}


@contextmanager
def refusing(harness: BrokerHarness, how: str) -> Iterator[None]:
    """Nothing is written in this time."""
    if how == "replica":
        harness.broker.replicaof("127.0.0.1", "1")
    else:
        harness.broker.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        harness.broker.replicaof("NO", "ONE")
        harness.broker.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pool", POOLS)
def test_workers_wait_for_it_and_go_on(costly_harness: BrokerHarness, pool: str, how: str) -> None:
    harness = costly_harness
    worker = harness.worker(pool, 1)
    running = harness.send("hold")
    harness.wait_started()
    waiting = [harness.send("record", str(number)) for number in range(5)]
    with refusing(harness, how):
        with pytest.raises(OperationalError, match=HOW[how]):
            harness.send("nothing")
        stays_true(lambda: worker.is_running, 2, "it does not end")
    harness.release()
    waiting.append(harness.send("record", "afterwards"))
    harness.wait_ended([running, *waiting])
    harness.wait_empty()
    assert sorted(harness.started()) == sorted([running, *waiting])
    assert worker.is_running


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server, Proxy]]:
    """A master, its replica, and the name of whoever is master."""
    with Server(tmp_path / "old") as old, Server(tmp_path / "new") as new, Proxy(old.port) as name:
        for server in (old, new):
            with server.client() as client:
                client.config_set("repl-diskless-sync-delay", 0)
        with new.client() as client:
            client.replicaof("127.0.0.1", str(old.port))
        yield old, new, name


def fail_over(old: Server, new: Server, name: Proxy) -> None:
    """The old master lives on as a replica, and keeps all its connections: nobody notices anything but refusals."""
    with old.client() as before, new.client() as promoted:
        before.set("written", "by the old master")
        assert before.wait(1, 10_000) == 1, "all is copied: what is not is lost with any fail-over"
        promoted.replicaof("NO", "ONE")
        name.move_to(new.port)
        before.replicaof("127.0.0.1", str(new.port))
        promoted.set("written", "by the new master")
        assert promoted.wait(1, 10_000) == 1, "who listens for results at the old one hears of them"


def test_a_failover_behind_a_name_is_followed(
    pair: tuple[Server, Server, Proxy], recorder: Server, tmp_path: Path
) -> None:
    old, new, name = pair
    with BrokerHarness(old, recorder, tmp_path, url=name.url) as harness, open_client(name.url) as client:
        worker = harness.worker("threads", 2)
        asked = harness.app.send_task("nothing", (7,), queue="later", ignore_result=False)
        running = harness.send("hold")
        harness.wait_started()
        client.ping()

        fail_over(*pair)

        harness.release()
        after = harness.send("record", retry=True)
        harness.wait_ended([running, after])
        with pytest.raises(redis.ConnectionError, match="read only"):
            client.set("written", "too early")
        client.set("written", "after")
        harness.worker("threads", 1, name="later", queues="later", IGNORE_RESULTS="0")
        assert asked.get(timeout=30) == 7
        with new.client() as promoted:
            wait_for(lambda: not promoted.keys("taskyard:message:*"), 30, "all are done on the new master")
            assert promoted.get("written") == "after"
        assert worker.is_running
        assert harness.started() == [running, after]


def test_a_server_whose_disk_is_full_is_a_lost_connection(tmp_path: Path) -> None:
    with Server(tmp_path / "server", appendfsync="no") as server, server.client() as operator:
        operator.config_set("appendonly", "no")
        operator.config_set("save", "3600 1")
        shutil.rmtree(tmp_path / "server")
        operator.bgsave()
        wait_for(lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err", 20, "it cannot save")
        with open_client(server.url, retry=None) as client, pytest.raises(redis.ConnectionError, match="MISCONF"):
            client.set("a", "b")
        operator.config_set("save", "")  # else it would not end


def test_other_errors_stay_what_they_are(valkey: Server) -> None:
    with open_client(valkey.url) as client:
        client.set("text", "a")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.lpush("text", "b")


def test_the_class_of_one_channel_goes_with_it() -> None:
    """Kombu makes a class for each, which holds the channel: kept, every reconnection would cost memory."""
    made = weakref.ref(with_reconnect_on_refusal(type("Connection", (redis.Connection,), {})))
    gc.collect()
    assert made() is None
