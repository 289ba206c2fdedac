"""The platform's signals in each pool: SIGTERM and Ctrl-C alike end a worker softly, a second one ends it at once."""

import pytest

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)
SLOTS = 10
WAITING = 500
OURS = {"OUR_SIGNALS": "1"}
CASES = [*((pool, "term") for pool in POOLS), ("threads", "interrupt"), ("prefork", "interrupt")]


@pytest.mark.parametrize(("pool", "signal"), CASES)
def test_ten_running_and_500_waiting_are_neither_lost_nor_run_twice(
    costly_harness: BrokerHarness, pool: str, signal: str
) -> None:
    """Solo has one slot."""
    harness = costly_harness
    slots = 1 if pool == "solo" else SLOTS
    runs = [harness.send("hold") for _ in range(slots + WAITING)]
    worker = harness.worker(pool, slots, SOFT_SHUTDOWN="60", **OURS)
    harness.wait_started(slots)
    getattr(worker, signal)()
    wait_for(lambda: "Soft shutdown (MainProcess)" in worker.tail(), 10, "the signal has come")
    assert "Cold shutdown" not in worker.tail()
    wait_for(lambda: harness.control.counts("celery").active == slots, 30, "only what runs is left")
    harness.release()
    assert worker.wait_ended(60) == 0
    assert sorted(harness.started()) == sorted(harness.ended())
    assert len(harness.started()) == slots
    counts = harness.control.counts("celery")
    assert (counts.waiting, counts.active) == (WAITING, 0)
    waiting = {peeked.run_id for peeked in harness.control.peek("celery", count=WAITING)}
    assert waiting | harness.ended() == set(runs)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("order", [("term", "interrupt"), ("interrupt", "term")], ids="-".join)
def test_a_second_signal_of_either_kind_is_cold(
    costly_harness: BrokerHarness, pool: str, order: tuple[str, str]
) -> None:
    harness = costly_harness
    worker, first, _ = harness.worker_with_four(pool, SOFT_SHUTDOWN="60", **OURS)
    getattr(worker, order[0])()
    wait_for(lambda: harness.control.counts("celery").active == 1, 10, "the shutdown has begun")
    getattr(worker, order[1])()
    assert worker.wait_ended(20) == 0
    assert harness.control.peek("celery")[0].run_id == first
    assert harness.control.counts("celery").active == 0


def test_the_time_of_the_shutdown_is_that_of_the_settings(costly_harness: BrokerHarness) -> None:
    harness = costly_harness
    worker, first, rest = harness.worker_with_four("threads", SOFT_SHUTDOWN="1", **OURS)
    worker.term()
    assert worker.wait_ended(15) == 0
    assert [peeked.run_id for peeked in harness.control.peek("celery")] == [first, *rest]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_still_looks_for_its_broker_does_not_wait_for_tasks(
    costly_harness: BrokerHarness, pool: str
) -> None:
    """It has taken none; Celery would sleep through the time of the shutdown, here a minute."""
    harness = costly_harness
    worker = harness.worker(pool, 1, SOFT_SHUTDOWN="60", url="redis://127.0.0.1:1/0", wait_ready=False, **OURS)
    wait_for(lambda: "Cannot connect" in worker.tail(), 60, "it looks for its broker", worker.tail)
    worker.term()
    assert worker.wait_ended(30) == 0, worker.tail()


def test_a_signal_to_the_whole_process_group_returns_what_ran_and_is_not_waited_for(
    costly_harness: BrokerHarness,
) -> None:
    """Some supervisors send it so. The pool's processes die of it, and nobody is left whose end could be awaited."""
    harness = costly_harness
    runs = {harness.send("hold") for _ in range(2)}
    worker = harness.worker("prefork", 2, SOFT_SHUTDOWN="60", **OURS)
    harness.wait_started(2)
    family = worker.children()
    worker.term()
    wait_for(lambda: "shutdown (MainProcess)" in worker.tail(), 10, "the signal has come")
    for process in family:
        process.terminate()
    assert worker.wait_ended(30) == 0
    assert {peeked.run_id for peeked in harness.control.peek("celery")} == runs
    assert harness.control.counts("celery").active == 0
