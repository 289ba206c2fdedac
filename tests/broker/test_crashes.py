"""Nothing is lost when workers die, and nothing runs twice while they live."""

import signal
import time
from dataclasses import replace

import pytest

from tests.broker.harness import POOLS, BrokerHarness
from tests.proxy import Proxy
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
LEASE = 1.0  # seconds, of the harness
SLACK = 2.0  # seconds after the end of a lease within which the message must be taken back


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_longer_than_its_lease_runs_once(valkey_harness: BrokerHarness, pool: str) -> None:
    """The lease is renewed whatever the pool does; solo's only thread is busy with the task."""
    valkey_harness.worker(pool, 1)
    valkey_harness.worker(pool, 1, name="other")
    run = valkey_harness.send("hold")
    valkey_harness.wait_started()
    stays_true(lambda: valkey_harness.started() == [run], 4 * LEASE, "it started once")
    valkey_harness.release()
    valkey_harness.wait_ended([run])
    valkey_harness.wait_empty()
    assert valkey_harness.states(run) == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_the_task_of_a_killed_worker_starts_elsewhere_within_a_lease_and_two_seconds(
    harness: BrokerHarness, pool: str
) -> None:
    victim = harness.worker(pool, 1)
    run = harness.send("hold")
    wait_for(lambda: "started" in harness.states(run), 60, "its start is recorded")
    harness.worker(pool, 1, name="other")
    victim.kill()
    killed_at = time.time()
    harness.wait_started(2)
    taken_back_at = next(int(event["at"]) / 1000 for event in harness.events(run) if event["e"] == "stalled")
    assert taken_back_at - killed_at < LEASE + SLACK
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_a_worker_took_and_never_read_are_not_lost(harness: BrokerHarness, pool: str) -> None:
    """The window in which stock kombu loses: the server has answered, the worker is killed before it reads."""
    with Proxy(harness.server.port, withhold=b"never-read") as proxy:
        victim = harness.worker(pool, 5, PREFETCH="5", url=proxy.url)
        harness.wait_listening()
        harness.control.pause("celery")
        runs = [harness.send("record", "never-read") for _ in range(5)]
        harness.control.resume("celery")
        assert proxy.has_withheld.wait(30), "the broker answered"
        victim.suspend()
        assert harness.control.counts("celery").active == 5
        victim.kill()
    harness.worker(pool, 5, name="other")
    harness.wait_ended(runs)
    harness.wait_empty()
    assert all(harness.states(run) == ["queued", "stalled", "started", "succeeded"] for run in runs)


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_a_killed_worker_had_not_started_are_not_lost(costly_harness: BrokerHarness, pool: str) -> None:
    harness = costly_harness
    victim, first, rest = harness.worker_with_four(pool)
    victim.kill()
    harness.release()
    harness.worker(pool, 2, name="other")
    harness.wait_ended([first, *rest])
    harness.wait_empty()
    assert all(harness.states(run) == ["queued", "stalled", "started", "succeeded"] for run in rest)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_wakes_after_its_lease_cannot_acknowledge(valkey_harness: BrokerHarness, pool: str) -> None:
    harness = valkey_harness
    sleeper = harness.worker(pool, 1)
    run = harness.send("hold")
    harness.wait_started()
    wait_for(lambda: harness.states(run) == ["queued", "started"], 30, "it has said that it began")
    sleeper.suspend()
    harness.worker(pool, 1, name="other")
    harness.wait_started(2)
    stays_true(lambda: harness.started() == [run, run], 2 * LEASE, "it sleeps for twice its lease")
    sleeper.resume()
    wait_for(lambda: "lease lost" in sleeper.log.read_text(), 30, "it learns that its lease is gone")
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


def test_a_lost_lease_cancels_the_execution_where_the_pool_can(harness: BrokerHarness) -> None:
    sleeper = harness.worker("prefork", 1)
    run = harness.send("hold")
    harness.wait_started()
    sleeper.suspend()
    harness.worker("prefork", 1, name="other")
    harness.wait_started(2)
    sleeper.resume()
    wait_for(lambda: "is cancelled" in sleeper.log.read_text(), 30, "it is cancelled")
    harness.release()
    harness.wait_ended([run])
    harness.wait_empty()
    assert len([line for line in harness.lines() if line.startswith("end ")]) == 1


def test_tasks_that_are_hours_away_cost_a_worker_nothing(harness: BrokerHarness) -> None:
    runs = [harness.send("record", "far", countdown=7200) for _ in range(5)]
    worker = harness.worker("threads", 2)
    stays_true(lambda: harness.control.counts("celery").delayed == 5, 3, "they stay delayed")
    assert "received" not in worker.log.read_text()
    assert all(harness.control.explain(run).state == "delayed" for run in runs)


def test_a_message_that_loses_its_worker_more_than_max_stalls_times_is_a_dead_letter(harness: BrokerHarness) -> None:
    harness.settings = replace(harness.settings, worker_max_stalls=2)
    run = harness.send("die")
    harness.worker("prefork", 1)
    (letter,) = wait_for(harness.dead_letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} worker_lost WorkerLostError")
    assert harness.started() == [run] * 3
    harness.wait_empty()
    assert harness.states(run)[-1] == "failed"


def test_workers_that_are_killed_more_than_max_stalls_times_leave_a_dead_letter(harness: BrokerHarness) -> None:
    harness.settings = replace(harness.settings, worker_max_stalls=0)
    run = harness.send("hold")
    worker = harness.worker("solo", 1)
    wait_for(lambda: "started" in harness.states(run), 60, "its start is recorded")
    worker.kill()
    harness.release()
    harness.worker("solo", 1, name="other")
    (letter,) = wait_for(harness.dead_letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} stalled Stalled")
    harness.wait_empty()
    assert harness.states(run) == ["queued", "started", "stalled", "failed"]


def test_workers_and_broker_killed_together_lose_nothing(harness: BrokerHarness) -> None:
    runs = [harness.send("record", str(number), 0.05) for number in range(50)]
    worker = harness.worker("threads", 4)
    wait_for(lambda: len(harness.ended()) > 5, 60, "some ended")
    worker.kill()
    harness.server.restart(signal.SIGKILL)
    harness.worker("threads", 4, name="other")
    harness.wait_ended(runs)
    harness.wait_empty()
