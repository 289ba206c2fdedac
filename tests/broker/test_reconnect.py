"""Workers of every pool and producers survive the loss of the broker or of the way to it; nothing is lost."""

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.broker.harness import POOLS, BrokerHarness
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import stays_true, wait_for
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)  # many processes start
BROKEN = (OperationalError, redis.RedisError, OSError)


@dataclass
class Load:
    """Two producers that send until they are told to stop; each call ends in a success or an error."""

    harness: BrokerHarness
    sent: list[str] = field(default_factory=list)
    refused: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        while not self._ends.wait(0.02):
            try:
                self.sent.append(self.harness.send("record", "", 0.02))
            except BROKEN:
                self.refused += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a producer neither succeeded nor failed"


def all_ended_once(harness: BrokerHarness, load: Load, worker: Worker) -> None:
    """Every run that a producer was told of succeeded exactly once; nothing is left; the worker lives."""
    harness.wait_ended(load.sent, 90)
    harness.wait_empty(60)
    assert worker.is_running
    finals = defaultdict(list)
    for event in harness.events():
        finals[event["id"]].append(event["e"])
    assert {run for run in load.sent if finals[run][-1] != "succeeded" or finals[run].count("succeeded") != 1} == set()


def restart_under_load(harness: BrokerHarness, pool: str, how: signal.Signals) -> None:
    worker = harness.worker(pool, 2)
    with Load(harness) as load:
        wait_for(lambda: len(harness.ended()) > 10, 60, "tasks end")
        harness.server.restart(how)
        before = len(load.sent)
        wait_for(lambda: len(load.sent) > before + 20, 60, "producers go on")
    all_ended_once(harness, load, worker)


def cut_under_load(harness: BrokerHarness, proxy: Proxy, pool: str, seconds: float, *, is_silent: bool) -> None:
    """Workers and producers alike reach the server through the proxy."""
    worker = harness.worker(pool, 2)
    with Load(harness) as load:
        wait_for(lambda: len(harness.ended()) > 10, 60, "tasks end")
        proxy.cut(silent=is_silent)
        stays_true(lambda: worker.is_running, seconds, "the worker lives without the network")
        proxy.heal()
        before = len(load.sent)
        wait_for(lambda: len(load.sent) > before + 20, 60, "producers go on")
    assert load.refused > 0
    all_ended_once(harness, load, worker)
    worker.stop()


def kill_connections_under_load(harness: BrokerHarness, pool: str, seconds: float) -> None:
    worker = harness.worker(pool, 2)
    with Load(harness) as load:
        wait_for(lambda: len(harness.ended()) > 10, 60, "tasks end")
        end = time.monotonic() + seconds
        with harness.server.client() as client:
            while time.monotonic() < end:
                client.client_kill_filter(_type="normal", skipme=True)
                wait_for(lambda: len(client.client_list()) > 1, 10, "somebody is connected again")
    all_ended_once(harness, load, worker)


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    """A cable to Valkey."""
    with Proxy(valkey.port) as made:
        yield made


@pytest.fixture
def far_harness(valkey: Server, proxy: Proxy, recorder: Server, tmp_path: Path) -> Iterator[BrokerHarness]:
    """A harness at the end of that cable."""
    with BrokerHarness(
        valkey, recorder, tmp_path, url=proxy.url, worker_queue_stalled_interval=timedelta(seconds=1)
    ) as made:
        yield made


@pytest.fixture
def any_proxy(broker_server: Server) -> Iterator[Proxy]:
    """A cable to each kind of server."""
    with Proxy(broker_server.port) as made:
        yield made


@pytest.fixture
def any_far_harness(
    broker_server: Server, any_proxy: Proxy, recorder: Server, tmp_path: Path
) -> Iterator[BrokerHarness]:
    """A harness at the end of that cable."""
    lease = timedelta(seconds=1)
    with BrokerHarness(
        broker_server, recorder, tmp_path, url=any_proxy.url, worker_queue_stalled_interval=lease
    ) as made:
        yield made


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("pool", POOLS)
def test_a_broker_restart_under_load_loses_nothing(
    costly_harness: BrokerHarness, pool: str, how: signal.Signals
) -> None:
    restart_under_load(costly_harness, pool, how)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_short_cut_of_the_network_loses_nothing(
    far_harness: BrokerHarness,
    proxy: Proxy,
    pool: str,
    is_silent: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    cut_under_load(far_harness, proxy, pool, 1.5, is_silent=is_silent)


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_cut_of_ten_seconds_loses_nothing(
    any_far_harness: BrokerHarness,
    any_proxy: Proxy,
    pool: str,
    is_silent: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    cut_under_load(any_far_harness, any_proxy, pool, 10, is_silent=is_silent)


@pytest.mark.parametrize("pool", POOLS)
def test_connections_killed_for_a_second_lose_nothing(valkey_harness: BrokerHarness, pool: str) -> None:
    kill_connections_under_load(valkey_harness, pool, 1)


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
def test_connections_killed_for_five_seconds_lose_nothing(harness: BrokerHarness, pool: str) -> None:
    kill_connections_under_load(harness, pool, 5)


def test_a_reconnect_does_not_run_a_running_task_again(harness: BrokerHarness) -> None:
    worker = harness.worker("prefork", 1)
    run = harness.send("hold")
    harness.wait_started()
    for _ in range(3):
        with harness.server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        wait_for(lambda: harness.control.counts("celery").active == 1, 10, "it is under its lease")
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "succeeded"]
    assert worker.is_running


def test_a_worker_with_gossip_comes_back_without_an_error(valkey_harness: BrokerHarness) -> None:
    """Its parts stopped when the connection was closed already, and cancelled their consumers all the same."""
    worker = valkey_harness.worker("threads", minimal=False)
    valkey_harness.server.kill()
    wait_for(lambda: "Cannot connect to" in worker.log.read_text(), 60, "it knows that the server is away", worker.tail)
    valkey_harness.server.start()
    valkey_harness.wait_listening()
    valkey_harness.wait_ended([valkey_harness.send("record")])
    assert "Error on restarting" not in worker.log.read_text()
