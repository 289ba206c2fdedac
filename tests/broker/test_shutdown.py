"""A worker that is told to end: what has not started goes back at once, what runs has its time, nothing is counted."""

import pytest

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
AT_ONCE = 3.0  # seconds
SOFTLY = {"REMAP_SIGTERM": "SIGQUIT"}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("options", [{}, {**SOFTLY, "SOFT_SHUTDOWN": "60"}], ids=["warm", "soft"])
def test_what_has_not_started_goes_back_at_once_and_in_order(
    costly_harness: BrokerHarness, pool: str, options: dict[str, str]
) -> None:
    harness = costly_harness
    worker, first, rest = harness.worker_with_four(pool, **options)
    harness.send("record", "last")
    worker.term()
    wait_for(lambda: harness.control.counts("celery").active == 1, AT_ONCE, "three are back while the first runs")
    assert [peeked.run_id for peeked in harness.control.peek("celery")][:3] == rest
    assert all(harness.control.explain(run).stalls == 0 for run in rest)
    harness.release()
    assert worker.wait_ended(60) == 0
    assert harness.started() == [first]
    assert harness.states(first) == ["queued", "started", "succeeded"]
    assert harness.control.counts("celery").active == 0


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_ends_in_the_time_of_a_soft_shutdown_does_not_run_again(
    costly_harness: BrokerHarness, pool: str
) -> None:
    """It may take as long as it likes, up to that time; then the worker ends at once, not when the time is over."""
    harness = costly_harness
    run = harness.send("hold")
    worker = harness.worker(pool, 1, SOFT_SHUTDOWN="60", **SOFTLY)
    harness.wait_started()
    worker.term()
    stays_true(lambda: worker.is_running, 2.5, "it waits for the task")
    harness.release()
    assert worker.wait_ended(15) == 0
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_soft_shutdown_returns_what_still_runs(costly_harness: BrokerHarness, pool: str) -> None:
    harness = costly_harness
    worker, first, rest = harness.worker_with_four(pool, SOFT_SHUTDOWN="1", **SOFTLY)
    worker.term()
    assert worker.wait_ended(15) == 0
    assert [(one.run_id, one.stalls, one.attempt) for one in harness.control.peek("celery")] == [
        (run, 0, 1) for run in (first, *rest)
    ]
    assert harness.control.counts("celery").active == 0
    assert harness.states(first) == ["queued", "started"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_second_signal_ends_the_time_of_a_soft_shutdown(costly_harness: BrokerHarness, pool: str) -> None:
    harness = costly_harness
    worker, first, _ = harness.worker_with_four(pool, SOFT_SHUTDOWN="60", **SOFTLY)
    worker.term()
    wait_for(lambda: harness.control.counts("celery").active == 1, AT_ONCE, "the shutdown has begun")
    worker.term()
    assert worker.wait_ended(15) == 0
    assert harness.control.peek("celery")[0].run_id == first
    assert harness.control.counts("celery").active == 0


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_wait_behind_a_long_task_in_one_worker_keep_their_leases(
    costly_harness: BrokerHarness, pool: str
) -> None:
    """Solo reads the second message only when the first task has ended."""
    harness = costly_harness
    _, _, rest = harness.worker_with_four(pool)
    stays_true(lambda: harness.control.counts("celery").active == 4, 3.5, "no lease of one second ends")
    harness.release()
    harness.wait_ended(rest)
    harness.wait_empty()
    assert all(harness.states(run) == ["queued", "started", "succeeded"] for run in rest)


def test_an_idle_worker_ends_at_once(costly_harness: BrokerHarness) -> None:
    worker = costly_harness.worker("threads", 2, SOFT_SHUTDOWN="60", **SOFTLY)
    worker.term()
    assert worker.wait_ended(10) == 0, worker.tail()
