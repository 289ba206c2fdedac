"""A broker that goes away while a worker ends: the worker ends in its time, and what has ended does not run again."""

import pytest

from tests.launch.up_process import all_gone
from tests.pools.app import hold
from tests.pools.odd_errors_app import occupy
from tests.pools.pool_platform import LIMIT, PoolPlatform
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)
SLOTS = 2


def ending_worker(platform: PoolPlatform, pool: str, seconds: int) -> Worker:
    """A worker that ends, with two executions at work; the third message is back in its queue."""
    worker = platform.worker(pool, SLOTS, module="tests.pools.odd_errors_app", WORKER_SHUTDOWN_SECONDS=str(seconds))
    task = hold if pool == "asyncio" else occupy
    for number in range(SLOTS + 1):
        task.delay(label=str(number))
    platform.wait_notes("start", SLOTS)
    worker.term()
    wait_for(lambda: "shutdown (MainProcess)" in worker.tail(), LIMIT, "the signal has come")
    wait_for(lambda: platform.control.counts("celery").active == SLOTS, LIMIT, "only what runs is left")
    return worker


@pytest.mark.parametrize(
    ("pool", "hurt"), [("threads", "kill"), ("asyncio", "kill"), ("prefork", "suspend"), ("asyncio", "suspend")]
)
def test_it_ends_in_its_time_without_the_broker(platform: PoolPlatform, valkey: Server, pool: str, hurt: str) -> None:
    """Its time is two seconds here, and the tasks would go on for ever."""
    worker = ending_worker(platform, pool, 2)
    family = worker.children()
    getattr(valkey, hurt)()
    try:
        assert worker.wait_ended(20) == 0, worker.tail()
        wait_for(lambda: all_gone(family), LIMIT, "no process of its pool is left")
    finally:
        valkey.resume() if hurt == "suspend" else valkey.start()
    counts = platform.control.counts("celery")
    assert counts.waiting + counts.active == SLOTS + 1, "what did not end is still there"


@pytest.mark.parametrize("pool", ["threads", "asyncio"])
def test_what_ends_while_the_broker_is_away_does_not_run_again(
    platform: PoolPlatform, valkey: Server, pool: str
) -> None:
    worker = ending_worker(platform, pool, 60)
    valkey.kill()
    wait_for(lambda: "the broker went away during the shutdown" in worker.tail(), LIMIT, "it has noticed")
    platform.records.set("go", 1)
    platform.wait_notes("end", SLOTS)
    valkey.start()
    assert worker.wait_ended(LIMIT) == 0, worker.tail()
    counts = platform.control.counts("celery")
    assert (counts.waiting, counts.active) == (1, 0)
