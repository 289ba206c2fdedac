"""A worker that is told to end: what has not started goes back at once, what runs has its time, nothing is counted."""

import pytest

from tests.broker.bed import POOLS, Bed
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
AT_ONCE = 3.0  # seconds
SOFTLY = {"REMAP_SIGTERM": "SIGQUIT"}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("options", [{}, {**SOFTLY, "SOFT_SHUTDOWN": "60"}], ids=["warm", "soft"])
def test_what_has_not_started_goes_back_at_once_and_in_order(
    costly_bed: Bed, pool: str, options: dict[str, str]
) -> None:
    bed = costly_bed
    worker, first, rest = bed.worker_with_four(pool, **options)
    bed.send("record", "last")
    worker.term()
    wait_for(lambda: bed.control.counts("celery").active == 1, AT_ONCE, "three are back while the first runs")
    assert [peeked.run_id for peeked in bed.control.peek("celery")][:3] == rest
    assert all(bed.control.explain(run).stalls == 0 for run in rest)
    bed.release()
    assert worker.wait_ended(60) == 0
    assert bed.started() == [first]
    assert bed.states(first) == ["queued", "started", "succeeded"]
    assert bed.control.counts("celery").active == 0


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_ends_in_the_time_of_a_soft_shutdown_does_not_run_again(costly_bed: Bed, pool: str) -> None:
    """It may take as long as it likes, up to that time; then the worker ends at once, not when the time is over."""
    bed = costly_bed
    run = bed.send("hold")
    worker = bed.worker(pool, 1, SOFT_SHUTDOWN="60", **SOFTLY)
    bed.wait_started()
    worker.term()
    stays_true(lambda: worker.is_running, 2.5, "it waits for the task")
    bed.release()
    assert worker.wait_ended(15) == 0
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_soft_shutdown_returns_what_still_runs(costly_bed: Bed, pool: str) -> None:
    bed = costly_bed
    worker, first, rest = bed.worker_with_four(pool, SOFT_SHUTDOWN="1", **SOFTLY)
    worker.term()
    assert worker.wait_ended(15) == 0
    assert [(one.run_id, one.stalls, one.attempt) for one in bed.control.peek("celery")] == [
        (run, 0, 1) for run in (first, *rest)
    ]
    assert bed.control.counts("celery").active == 0
    assert bed.states(first) == ["queued", "started"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_second_signal_ends_the_time_of_a_soft_shutdown(costly_bed: Bed, pool: str) -> None:
    bed = costly_bed
    worker, first, _ = bed.worker_with_four(pool, SOFT_SHUTDOWN="60", **SOFTLY)
    worker.term()
    wait_for(lambda: bed.control.counts("celery").active == 1, AT_ONCE, "the shutdown has begun")
    worker.term()
    assert worker.wait_ended(15) == 0
    assert bed.control.peek("celery")[0].run_id == first
    assert bed.control.counts("celery").active == 0


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_wait_behind_a_long_task_in_one_worker_keep_their_leases(costly_bed: Bed, pool: str) -> None:
    """Solo reads the second message only when the first task has ended."""
    bed = costly_bed
    _, _, rest = bed.worker_with_four(pool)
    stays_true(lambda: bed.control.counts("celery").active == 4, 3.5, "no lease of one second ends")
    bed.release()
    bed.wait_ended(rest)
    bed.wait_empty()
    assert all(bed.states(run) == ["queued", "started", "succeeded"] for run in rest)


def test_an_idle_worker_ends_at_once(costly_bed: Bed) -> None:
    worker = costly_bed.worker("threads", 2, SOFT_SHUTDOWN="60", **SOFTLY)
    worker.term()
    assert worker.wait_ended(10) == 0, worker.tail()
