"""Workers of every pool and producers survive the loss of the broker or of the way to it; nothing is lost."""

import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import pytest
import redis
from kombu.exceptions import OperationalError

from tests.broker.bed import POOLS, Bed
from tests.proxy import Proxy
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
BROKEN = (OperationalError, redis.RedisError, OSError)


@dataclass
class Load:
    """Two producers that send until they are told to stop; each call ends in a success or an error."""

    bed: Bed
    sent: list[str] = field(default_factory=list)
    refused: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        while not self._ends.wait(0.02):
            try:
                self.sent.append(self.bed.send("record", "", 0.02))
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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("pool", POOLS)
def test_a_broker_restart_under_load_loses_nothing(valkey_bed: Bed, pool: str, how: signal.Signals) -> None:
    bed = valkey_bed
    worker = bed.worker(pool, 2)
    with Load(bed) as load:
        wait_for(lambda: len(bed.ended()) > 10, 60, "tasks end")
        bed.server.restart(how)
        before = len(load.sent)
        wait_for(lambda: len(load.sent) > before + 20, 60, "producers go on")
    bed.wait_ended(load.sent)
    bed.wait_empty()
    assert worker.is_running
    assert all(bed.states(run)[-1] == "succeeded" for run in load.sent)
    assert all(bed.states(run).count("succeeded") == 1 for run in load.sent)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("is_silent", [False, True])
def test_a_cut_of_the_network_loses_nothing(valkey_bed: Bed, pool: str, is_silent: bool) -> None:  # noqa: FBT001 - a parameter of the test
    bed = valkey_bed
    with Proxy(bed.server.port) as proxy:
        worker = bed.worker(pool, 2, url=proxy.url)
        with Load(bed) as load:
            wait_for(lambda: len(bed.ended()) > 10, 60, "tasks end")
            proxy.cut(silent=is_silent)
            before = len(load.sent)
            wait_for(lambda: len(load.sent) > before + 30, 60, "some wait")
            proxy.heal()
        bed.wait_ended(load.sent, 90)
        bed.wait_empty(60)
        assert worker.is_running
        assert all(bed.states(run)[-1] == "succeeded" for run in load.sent)
        worker.stop()


@pytest.mark.parametrize("pool", POOLS)
def test_killed_connections_lose_nothing(valkey_bed: Bed, pool: str) -> None:
    bed = valkey_bed
    worker = bed.worker(pool, 2)
    with Load(bed) as load:
        wait_for(lambda: len(bed.ended()) > 10, 60, "tasks end")
        end = time.monotonic() + 3
        with bed.server.client() as client:
            while time.monotonic() < end:
                client.client_kill_filter(_type="normal", skipme=True)
                wait_for(lambda: len(client.client_list()) > 1, 10, "somebody is connected again")
    bed.wait_ended(load.sent, 90)
    bed.wait_empty(60)
    assert worker.is_running
    assert all(bed.states(run)[-1] == "succeeded" for run in load.sent)


def test_a_reconnect_does_not_run_a_running_task_again(bed: Bed) -> None:
    worker = bed.worker("prefork", 1)
    run = bed.send("hold")
    bed.wait_started()
    for _ in range(3):
        with bed.server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        wait_for(lambda: bed.control.counts("celery").active == 1, 10, "it is under its lease")
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "succeeded"]
    assert worker.is_running
