"""Long tasks, with the numbers of production: leases of five seconds, a hundred seconds of work."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.broker.bed import POOLS, Bed
from tests.servers import Server
from tests.waiting import stays_true, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
LEASE = 5.0  # seconds
SLACK = 2.0  # seconds after the end of a lease within which the task must run elsewhere


@pytest.fixture
def slow_bed(broker_server: Server, recorder: Server, tmp_path: Path) -> Iterator[Bed]:
    """A bed with leases of five seconds, on each kind of server."""
    lease = timedelta(seconds=LEASE)
    with Bed(broker_server, recorder, tmp_path, worker_queue_stalled_interval=lease) as made:
        yield made


def starts(bed: Bed) -> list[float]:
    """When executions started, in seconds."""
    return [float(line.split()[-1]) for line in bed.lines() if line.startswith("start ")]


def test_a_task_of_a_hundred_seconds_runs_once(slow_bed: Bed) -> None:
    """In each pool at the same time, each with a second worker that would take it."""
    runs = {pool: slow_bed.send("hold", queue=pool) for pool in POOLS}
    for pool in POOLS:
        for number in range(2):
            slow_bed.worker(pool, 1, name=f"{pool}{number}", queues=pool)
    slow_bed.wait_started(3)
    stays_true(lambda: len(slow_bed.started()) == 3, 100, "each started once")
    slow_bed.release()
    slow_bed.wait_ended(runs.values())
    slow_bed.wait_empty()
    assert all(slow_bed.states(run) == ["queued", "started", "succeeded"] for run in runs.values())


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_loses_its_worker_after_three_seconds_starts_elsewhere_in_time(slow_bed: Bed, pool: str) -> None:
    bed = slow_bed
    victim = bed.worker(pool, 1)
    run = bed.send("hold")
    bed.wait_started()
    bed.worker(pool, 1, name="other")
    stays_true(lambda: len(bed.started()) == 1, max(0.0, 3 - _age(bed)), "three seconds of work")
    killed_at = _now(bed)
    victim.kill()
    bed.wait_started(2, LEASE + SLACK)
    assert starts(bed)[1] - killed_at < LEASE + SLACK
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_suspended_for_twice_the_interval_cannot_acknowledge(slow_bed: Bed, pool: str) -> None:
    bed = slow_bed
    sleeper = bed.worker(pool, 1)
    run = bed.send("hold")
    bed.wait_started()
    bed.worker(pool, 1, name="other")
    sleeper.suspend()
    stays_true(lambda: sleeper.is_running, 2 * LEASE, "it is suspended")
    assert bed.started() == [run, run]
    sleeper.resume()
    wait_for(lambda: "lease lost" in sleeper.log.read_text(), 30, "it learns that its lease is gone")
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


def _now(bed: Bed) -> float:
    seconds, microseconds = bed.records.time()
    return float(seconds) + float(microseconds) / 1e6


def _age(bed: Bed) -> float:
    return _now(bed) - starts(bed)[0]
