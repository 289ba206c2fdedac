"""Nothing is lost when workers die, and nothing runs twice while they live."""

import signal
import time
from dataclasses import replace

import pytest

from tests.broker.bed import POOLS, Bed
from tests.proxy import Proxy
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
LEASE = 1.0  # seconds, of the bed
SLACK = 2.0  # seconds after the end of a lease within which the message must be taken back


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_longer_than_its_lease_runs_once(valkey_bed: Bed, pool: str) -> None:
    """The lease is renewed whatever the pool does; solo's only thread is busy with the task."""
    valkey_bed.worker(pool, 1)
    valkey_bed.worker(pool, 1, name="other")
    run = valkey_bed.send("hold")
    valkey_bed.wait_started()
    stays_true(lambda: valkey_bed.started() == [run], 4 * LEASE, "it started once")
    valkey_bed.release()
    valkey_bed.wait_ended([run])
    valkey_bed.wait_empty()
    assert valkey_bed.states(run) == ["queued", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_the_task_of_a_killed_worker_starts_elsewhere_within_a_lease_and_two_seconds(bed: Bed, pool: str) -> None:
    victim = bed.worker(pool, 1)
    run = bed.send("hold")
    wait_for(lambda: "started" in bed.states(run), 60, "its start is recorded")
    bed.worker(pool, 1, name="other")
    victim.kill()
    killed_at = time.time()
    bed.wait_started(2)
    taken_back_at = next(int(event["at"]) / 1000 for event in bed.events(run) if event["e"] == "stalled")
    assert taken_back_at - killed_at < LEASE + SLACK
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_a_worker_took_and_never_read_are_not_lost(bed: Bed, pool: str) -> None:
    """The window in which stock kombu loses: the server has answered, the worker is killed before it reads."""
    with Proxy(bed.server.port, withhold=b"never-read") as proxy:
        victim = bed.worker(pool, 5, PREFETCH="5", url=proxy.url)
        bed.wait_listening()
        bed.control.pause("celery")
        runs = [bed.send("record", "never-read") for _ in range(5)]
        bed.control.resume("celery")
        assert proxy.has_withheld.wait(30), "the broker answered"
        victim.suspend()
        assert bed.control.counts("celery").active == 5
        victim.kill()
    bed.worker(pool, 5, name="other")
    bed.wait_ended(runs)
    bed.wait_empty()
    assert all(bed.states(run) == ["queued", "stalled", "started", "succeeded"] for run in runs)


@pytest.mark.parametrize("pool", POOLS)
def test_messages_that_a_killed_worker_had_not_started_are_not_lost(costly_bed: Bed, pool: str) -> None:
    bed = costly_bed
    victim, first, rest = bed.worker_with_four(pool)
    victim.kill()
    bed.release()
    bed.worker(pool, 2, name="other")
    bed.wait_ended([first, *rest])
    bed.wait_empty()
    assert all(bed.states(run) == ["queued", "stalled", "started", "succeeded"] for run in rest)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_wakes_after_its_lease_cannot_acknowledge(valkey_bed: Bed, pool: str) -> None:
    bed = valkey_bed
    sleeper = bed.worker(pool, 1)
    run = bed.send("hold")
    bed.wait_started()
    wait_for(lambda: bed.states(run) == ["queued", "started"], 30, "it has said that it began")
    sleeper.suspend()
    bed.worker(pool, 1, name="other")
    bed.wait_started(2)
    stays_true(lambda: bed.started() == [run, run], 2 * LEASE, "it sleeps for twice its lease")
    sleeper.resume()
    wait_for(lambda: "lease lost" in sleeper.log.read_text(), 30, "it learns that its lease is gone")
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "stalled", "started", "succeeded"]


def test_a_lost_lease_cancels_the_execution_where_the_pool_can(bed: Bed) -> None:
    sleeper = bed.worker("prefork", 1)
    run = bed.send("hold")
    bed.wait_started()
    sleeper.suspend()
    bed.worker("prefork", 1, name="other")
    bed.wait_started(2)
    sleeper.resume()
    wait_for(lambda: "is cancelled" in sleeper.log.read_text(), 30, "it is cancelled")
    bed.release()
    bed.wait_ended([run])
    bed.wait_empty()
    assert len([line for line in bed.lines() if line.startswith("end ")]) == 1


def test_tasks_that_are_hours_away_cost_a_worker_nothing(bed: Bed) -> None:
    runs = [bed.send("record", "far", countdown=7200) for _ in range(5)]
    worker = bed.worker("threads", 2)
    stays_true(lambda: bed.control.counts("celery").delayed == 5, 3, "they stay delayed")
    assert "received" not in worker.log.read_text()
    assert all(bed.control.explain(run).state == "delayed" for run in runs)


def test_a_message_that_loses_its_worker_more_than_max_stalls_times_is_a_dead_letter(bed: Bed) -> None:
    bed.settings = replace(bed.settings, worker_max_stalls=2)
    run = bed.send("die")
    bed.worker("prefork", 1)
    (letter,) = wait_for(bed.letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} worker_lost WorkerLostError")
    assert bed.started() == [run] * 3
    bed.wait_empty()
    assert bed.states(run)[-1] == "failed"


def test_workers_that_are_killed_more_than_max_stalls_times_leave_a_dead_letter(bed: Bed) -> None:
    bed.settings = replace(bed.settings, worker_max_stalls=0)
    run = bed.send("hold")
    worker = bed.worker("solo", 1)
    wait_for(lambda: "started" in bed.states(run), 60, "its start is recorded")
    worker.kill()
    bed.release()
    bed.worker("solo", 1, name="other")
    (letter,) = wait_for(bed.letters, 60, "the letter was stored")
    assert letter.startswith(f"{run} stalled Stalled")
    bed.wait_empty()
    assert bed.states(run) == ["queued", "started", "stalled", "failed"]


def test_workers_and_broker_killed_together_lose_nothing(bed: Bed) -> None:
    runs = [bed.send("record", str(number), 0.05) for number in range(50)]
    worker = bed.worker("threads", 4)
    wait_for(lambda: len(bed.ended()) > 5, 60, "some ended")
    worker.kill()
    bed.server.restart(signal.SIGKILL)
    bed.worker("threads", 4, name="other")
    bed.wait_ended(runs)
    bed.wait_empty()
