"""Long tasks, with the numbers of production: leases of five seconds, a hundred seconds of work."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.broker.harness import POOLS, BrokerHarness
from tests.servers import Server
from tests.waiting import stays_true, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
LEASE = 5.0  # seconds
SLACK = 2.0  # seconds after the end of a lease within which the task must run elsewhere


@pytest.fixture
def slow_harness(broker_server: Server, recorder: Server, tmp_path: Path) -> Iterator[BrokerHarness]:
    """A harness with leases of five seconds, on each kind of server."""
    lease = timedelta(seconds=LEASE)
    with BrokerHarness(broker_server, recorder, tmp_path, worker_queue_stalled_interval=lease) as made:
        yield made


def starts(harness: BrokerHarness) -> list[float]:
    """When executions started, in seconds."""
    return [float(line.split()[-1]) for line in harness.lines() if line.startswith("start ")]


def test_a_task_of_a_hundred_seconds_runs_once(slow_harness: BrokerHarness) -> None:
    """In each pool at the same time, each with a second worker that would take it."""
    runs = {pool: slow_harness.send("hold", queue=pool) for pool in POOLS}
    for pool in POOLS:
        for number in range(2):
            slow_harness.worker(pool, 1, name=f"{pool}{number}", queues=pool)
    slow_harness.wait_started(3)
    stays_true(lambda: len(slow_harness.started()) == 3, 100, "each started once")
    slow_harness.release()
    slow_harness.wait_ended(runs.values())
    slow_harness.wait_empty()
    assert all(slow_harness.states(run) == ["queued", "started", "succeeded"] for run in runs.values())


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_loses_its_worker_after_three_seconds_starts_elsewhere_in_time(
    slow_harness: BrokerHarness, pool: str
) -> None:
    harness = slow_harness
    victim = harness.worker(pool, 1)
    run = harness.send("hold")
    harness.wait_started()
    harness.worker(pool, 1, name="other")
    stays_true(lambda: len(harness.started()) == 1, max(0.0, 3 - _age(harness)), "three seconds of work")
    killed_at = _now(harness)
    victim.kill()
    harness.wait_started(2, LEASE + SLACK)
    assert starts(harness)[1] - killed_at < LEASE + SLACK
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_suspended_for_twice_the_interval_cannot_acknowledge(slow_harness: BrokerHarness, pool: str) -> None:
    harness = slow_harness
    sleeper = harness.worker(pool, 1)
    run = harness.send("hold")
    harness.wait_started()
    harness.worker(pool, 1, name="other")
    sleeper.suspend()
    stays_true(lambda: sleeper.is_running, 2 * LEASE, "it is suspended")
    assert harness.started() == [run, run]
    sleeper.resume()
    wait_for(lambda: "lease lost" in sleeper.log.read_text(), 30, "it learns that its lease is gone")
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


def _now(harness: BrokerHarness) -> float:
    seconds, microseconds = harness.records.time()
    return float(seconds) + float(microseconds) / 1e6


def _age(harness: BrokerHarness) -> float:
    return _now(harness) - starts(harness)[0]
