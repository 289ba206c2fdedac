"""Who is charged for the death of a worker: suspects run alone, and only what ran alone is counted against."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
import redis
from celery.worker import state

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.envelope import TakenMessage
from taskyard.broker.protocol.outcomes import BrokerLease
from taskyard.broker.worker.suspects import SuspectGate
from tests.broker.harness import BrokerHarness
from tests.broker.script_driver import ScriptDriver
from tests.servers import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


def die_with(driver: ScriptDriver, *all_taken: TakenMessage) -> None:
    """The worker that has these messages is gone."""
    for taken in all_taken:
        driver.expire(taken)


def test_the_first_death_of_a_worker_with_several_messages_makes_suspects_and_charges_nobody(
    driver: ScriptDriver,
) -> None:
    for run in "ab":
        driver.put(run)
    die_with(driver, *driver.take(2))
    taken = driver.take(2)
    assert sorted((one.run_id, one.stalls, one.losses) for one in taken) == [("a", 0, 1), ("b", 0, 1)]


def test_a_message_that_was_alone_is_charged_and_no_longer_once_others_came(driver: ScriptDriver) -> None:
    driver.put("a")
    (only,) = driver.take()
    driver.put("b")
    (other,) = driver.take(in_hand=only.tag)
    die_with(driver, only, other)
    taken = driver.take(2)
    assert sorted((one.run_id, one.stalls) for one in taken) == [("a", 0), ("b", 0)]


def test_a_suspect_that_waits_in_a_worker_is_not_charged_until_it_runs_alone(
    leases: LeaseManager, driver: ScriptDriver
) -> None:
    for run in "ab":
        driver.put(run)
    die_with(driver, *driver.take(2))
    taken = driver.take(2, holds_suspects=True)
    leases.add(cast("BrokerLease", one.to_lease()) for one in taken)
    leases.let_go(taken[0].delivery_tag)
    die_with(driver, *taken)
    assert {one.run_id: one.stalls for one in driver.take(2)} == {taken[0].run_id: 1, taken[1].run_id: 0}


def test_a_suspect_that_others_join_is_held_back_again(leases: LeaseManager, driver: ScriptDriver) -> None:
    driver.put("a")
    die_with(driver, *driver.take())
    (taken,) = driver.take(holds_suspects=True)
    leases.add([cast("BrokerLease", taken.to_lease())])
    leases.let_go(taken.delivery_tag)
    leases.hold_back(taken.delivery_tag)
    die_with(driver, taken)
    assert driver.take()[0].stalls == 1


def test_what_ends_each_worker_before_it_can_run_alone_is_dead_in_the_end(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.put("b")
    die_with(driver, *driver.take(2))
    driver.done(driver.take(1)[0])
    lost = 1
    while taken := driver.take(holds_suspects=True):
        die_with(driver, *taken)
        lost += 1
    assert lost == driver.max_stalls + 11
    assert driver.control.counts("q").dead == 1


@pytest.fixture
def leases(broker_server: Server, driver: ScriptDriver) -> Iterator[LeaseManager]:
    """The leases of a process."""
    with redis.Redis(port=broker_server.port) as client:
        yield LeaseManager(client, driver.space, driver.lease_ms, driver.max_stalls)


def test_an_error_of_a_worker_counts_against_what_it_executed_only_if_that_was_alone(
    leases: LeaseManager, driver: ScriptDriver
) -> None:
    for run in "abc":
        driver.put(run)
    held = [cast("BrokerLease", taken.to_lease()) for taken in driver.take(3)]
    leases.add(held)
    for lease in held[:2]:
        leases.start(lease.delivery_tag, "{}")
    leases.stall_started([lease.delivery_tag for lease in held], "{}")
    leases.flush_and_wait()
    assert [(taken.run_id, taken.stalls, taken.losses) for taken in driver.take(2)] == [("b", 0, 1), ("a", 0, 1)]


class Queued:
    """What the gate reads of a request."""

    def __init__(self, name: str, stalls: int = -1) -> None:
        self.name, self.stalls, self.is_suspect, self.is_held = name, stalls, stalls >= 0, stalls >= 0

    def hold_back(self) -> None:
        self.is_held = True

    def let_go(self) -> None:
        self.is_held = False


def test_a_suspect_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    running: set[Any] = set()
    monkeypatch.setattr(state, "reserved_requests", running)

    gate = SuspectGate(lambda one: started.append(one.name))
    requests = {one.name: one for one in (Queued("a"), Queued("b", 2), Queued("c"), Queued("d", 0), Queued("e", 1))}
    for one in requests.values():
        running.add(one)
        gate.admit(one)
    gate.release()
    assert started == ["a"]
    for name in "adebc":  # of the suspects the least suspicious is first
        assert started[-1] == name
        assert [each.name for each in requests.values() if each.is_held] == [one for one in "bde" if one not in started]
        running.discard(requests[name])
        gate.release()


def test_a_suspect_beside_others_is_not_charged_for_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[Any] = set()
    monkeypatch.setattr(state, "reserved_requests", running)
    gate = SuspectGate(lambda _: None, patience=0)
    suspect, other = Queued("suspect", 0), Queued("other")
    for one, is_held in ((suspect, False), (other, True)):
        running.add(one)
        gate.admit(one)
        gate.release()
        assert suspect.is_held is is_held


@pytest.mark.parametrize("pool", ["threads", "custom"])
def test_a_healthy_task_beside_a_poison_one_is_not_buried(valkey_harness: BrokerHarness, pool: str) -> None:
    """The poison ends the whole process each time; who ended it the first time is not known, so nobody is charged."""
    harness = valkey_harness
    lease = timedelta(seconds=2)  # that a busy machine keeps
    harness.settings = replace(harness.settings, worker_max_stalls=1, worker_queue_stalled_interval=lease)
    loop = {"CELERY_CUSTOM_WORKER_POOL": "taskyard.pools.asyncio_pool:TaskPool"}
    healthy, poison = harness.send("record", "healthy", 3), harness.send("die")
    worker = harness.worker(pool, 4, PREFETCH="4", **loop)

    def is_over() -> bool:
        if not worker.is_running:
            worker.start()
        return healthy in harness.ended() and bool(harness.dead_letters())

    wait_for(is_over, 120, "both are over")
    (letter,) = harness.dead_letters()
    assert letter.startswith(f"{poison} stalled")
    assert {json_stalls(event) for event in harness.events(healthy) if event["e"] == "stalled"} <= {0}


def json_stalls(event: dict[str, str]) -> int:
    """The number of stalls that a `stalled` event reports."""
    return int(event["d"].split('"stalls":')[1].split(",")[0].split("}")[0])
