"""`async def` handlers: in every pool they run, fail, retry and enqueue; in the asyncio pool also with all limits."""

import pytest

from tests.pools.app import block, fail, hard, hold, identify, nap, parent, soft, stall, talk, tick
from tests.pools.odd_errors_app import occupy
from tests.pools.pool_platform import LIMIT, POOLS, PoolPlatform
from tests.servers import Server
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("pool", POOLS)
def test_they_know_who_they_are_fail_retry_and_enqueue_in_every_pool(platform: PoolPlatform, pool: str) -> None:
    """`self.request` is that of the run, also in coroutines that it starts, also with many at the same time."""
    platform.worker(pool, 4)
    runs = {f"run-{number}": identify.delay(label=f"run-{number}").id for number in range(8)}
    parent.delay(label="first")
    lines = [line.split() for line in platform.wait_notes("is", 16)]
    assert {label: {*ids} for label, *ids in lines} == {label: {run} for label, run in runs.items()}
    assert platform.wait_notes("end") == ["child of first"]
    platform.wait_done()
    assert len(platform.notes("is")) == 16


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_the_soft_limit_is_raised_inside_and_the_hard_limit_ends_and_buries(platform: PoolPlatform, pool: str) -> None:
    platform.worker(pool, 4)
    soft.delay(label="one")
    assert platform.wait_notes("soft") == ["one"]
    run = hard.delay(label="two")
    if pool == "asyncio":  # prefork kills the process, which has no time to note
        assert platform.wait_notes("hard") == ["two"]
    platform.wait_dead_letters(1)
    assert platform.dead_letters() == [(run.id, "time_limit")]
    platform.wait_done()


def test_a_failure_is_buried_with_its_reason(platform: PoolPlatform) -> None:
    platform.worker()
    run = fail.delay(label="no")
    platform.wait_dead_letters(1)
    assert platform.dead_letters() == [(run.id, "permanent")]


def test_revoke_with_terminate_cancels_the_coroutine_and_frees_its_slot(platform: PoolPlatform) -> None:
    platform.worker(slots=1)
    run = hold.delay(label="held")
    nap.delay(label="next")
    platform.wait_notes("start")
    run.revoke(terminate=True)
    assert platform.wait_notes("cancelled") == ["held"]
    assert platform.wait_notes("end") == ["next"]
    platform.wait_done()


def test_neighbours_of_a_def_that_blocks_end_before_it(platform: PoolPlatform) -> None:
    """The short version of the next one, for a machine that is busy."""
    platform.worker(slots=4, module="tests.pools.odd_errors_app")
    occupy.delay(label="blocks")
    platform.wait_notes("start")
    for number in range(20):
        nap.delay(label=f"neighbour {number}", seconds=0.01)
    assert len(set(platform.wait_notes("end", 20))) == 20
    assert "blocks" not in platform.notes("end")
    platform.records.set("go", 1)
    platform.wait_done()


@pytest.mark.chaos
def test_a_def_that_blocks_does_not_delay_its_neighbours_on_the_loop(platform: PoolPlatform) -> None:
    """Five seconds in a thread; a pause of 5 ms on the loop is never 50 ms late meanwhile. Needs a quiet machine."""
    platform.worker()
    block.delay(label="five", seconds=5)
    platform.wait_notes("start")
    tick.delay(label="neighbour", seconds=4)
    (line,) = platform.wait_notes("worst")
    assert platform.notes("end") == [], "it blocked all the time"
    assert float(line.split()[1]) < 0.05


def test_the_loop_goes_on_while_words_of_handlers_are_sent(platform: PoolPlatform, valkey: Server) -> None:
    """Each end waits a moment for its lines, here for a broker that stands still: ten one after the other took 2 s."""
    platform.worker(slots=11)
    for number in range(10):
        talk.delay(label=str(number))
    tick.delay(label="neighbour", seconds=4)
    platform.wait_notes("start", 11)
    valkey.suspend()
    try:
        platform.records.set("go", 1)
        (line,) = platform.wait_notes("worst")
        assert len(platform.notes("said")) == 10
    finally:
        valkey.resume()
    assert float(line.split()[1]) < 1
    platform.wait_done()


def test_a_blocked_loop_is_measured_and_warned_about(platform: PoolPlatform) -> None:
    worker = platform.worker()
    stall.delay(label="half a second", seconds=0.5)
    platform.wait_notes("end")
    wait_for(lambda: "the event loop was blocked for" in worker.tail(), LIMIT, "the log says so")
    assert "pools.stall" in worker.tail()


@pytest.mark.parametrize("signal", ["term", "interrupt"])
def test_ten_running_and_500_waiting_are_neither_lost_nor_run_twice(platform: PoolPlatform, signal: str) -> None:
    runs = [hold.delay(label=str(number)).id for number in range(510)]
    worker = platform.worker(slots=10)
    platform.wait_notes("start", 10)
    getattr(worker, signal)()
    wait_for(lambda: "shutdown (MainProcess)" in worker.tail(), LIMIT, "the signal has come")
    stays_true(lambda: worker.is_running, 0.5, "it waits for what runs")
    platform.records.set("go", "1")
    assert worker.wait_ended(LIMIT) == 0
    assert sorted(platform.notes("end")) == sorted(platform.notes("start")) == sorted(map(str, range(10)))
    counts = platform.control.counts("celery")
    assert (counts.waiting, counts.active) == (500, 0)
    assert len(set(runs)) == 510


def test_at_the_end_of_the_time_coroutines_are_cancelled_and_go_back(platform: PoolPlatform) -> None:
    worker = platform.worker(slots=2, WORKER_SHUTDOWN_SECONDS="1")
    runs = [hold.delay(label=str(number)).id for number in range(3)]
    platform.wait_notes("start", 2)
    worker.term()
    assert worker.wait_ended(20) == 0
    assert sorted(platform.notes("cancelled")) == ["0", "1"]
    assert [peeked.run_id for peeked in platform.control.peek("celery")] == runs
    assert platform.dead_letters() == []


@pytest.mark.parametrize(("count", "slots"), [(200, 50), pytest.param(2000, 500, marks=pytest.mark.chaos)])
def test_many_handlers_of_50_ms_share_the_slots(platform: PoolPlatform, count: int, slots: int) -> None:
    """None is lost or run twice; how fast they are is a matter for the benchmark."""
    platform.worker(slots=slots)
    for number in range(count):
        nap.delay(label=str(number), seconds=0.05)
    platform.wait_done()
    assert sorted(map(int, platform.notes("end"))) == list(range(count))
