"""What comes back is marked and counted; copies in several queues are messages of their own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import kombu
import pytest
import redis

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.outcomes import BrokerLease, Completed
from tests.broker.harness import BrokerHarness
from tests.broker.script_driver import ScriptDriver
from tests.servers import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("kind", ["direct", "topic"])
def test_every_queue_bound_to_an_exchange_gets_its_copy(harness: BrokerHarness, kind: str) -> None:
    exchange = kombu.Exchange(f"shared-{kind}", type=kind)
    queues = [kombu.Queue(f"{kind}-{number}", exchange, routing_key="key") for number in range(3)]
    with harness.app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        bound = [queue.bind(channel) for queue in queues]
        for queue in bound:
            queue.declare()
        harness.app.send_task("record", exchange=exchange.name, exchange_type=kind, routing_key="key", task_id="copied")
        copies: list[Any] = [queue.get() for queue in bound]
        assert [message.headers["id"] for message in copies] == ["copied"] * 3
        assert len({message.delivery_tag for message in copies}) == 3
        for message in copies:
            message.ack()
        for queue in bound:
            queue.delete()
    harness.wait_empty()


def test_the_same_publication_put_twice_is_one_message_in_each_queue(driver: ScriptDriver) -> None:
    for _ in range(2):
        for queue in ("q", "r", "s"):
            driver.queue = queue
            driver.put("a")
    assert [driver.control.counts(queue).waiting for queue in ("q", "r", "s")] == [1, 1, 1]


def test_a_cancelled_run_starts_from_none_of_its_queues(driver: ScriptDriver) -> None:
    for queue in ("q", "r"):
        driver.queue = queue
        driver.put("a")
    driver.control.cancel("a", by="operator")
    taken = driver.take(5, "q", "r")
    assert ["operator" in one.cancelled_by for one in taken] == [True, True]


def test_copies_that_fail_are_dead_letters_each(driver: ScriptDriver) -> None:
    for queue in ("q", "r"):
        driver.queue = queue
        driver.put("a")
    for taken in driver.take(5, "q", "r"):
        driver.bury(taken)
    letters = driver.take(5, "dead-letter")
    assert len({letter.dead[0] for letter in letters}) == 2


def test_a_plain_consumer_that_requeues_finds_the_message_at_once_and_marked(harness: BrokerHarness) -> None:
    with harness.app.connection_for_write() as connection:
        queue = connection.SimpleQueue("plain")
        queue.put({"some": "thing"})
        first = queue.get_nowait()
        assert not first.delivery_info.get("redelivered")
        first.requeue()
        second = queue.get_nowait()
        assert second.delivery_info["redelivered"] is True
        second.reject(requeue=True)
        queue.get_nowait().ack()
    harness.wait_empty()


def test_a_task_that_rejects_itself_for_ever_becomes_a_dead_letter(valkey_harness: BrokerHarness) -> None:
    harness = valkey_harness
    harness.settings = replace(harness.settings, worker_max_stalls=2)
    run = harness.send("reject_again")
    harness.worker("threads", 1)
    (letter,) = wait_for(harness.dead_letters, 60, "it is a dead letter")
    assert letter.startswith(f"{run} rejected Reject")
    tries = [line.split()[2] for line in harness.lines() if line.startswith(f"try {run}")]
    assert tries == ["False", "True", "True"]
    harness.wait_empty()


@pytest.fixture
def leases(broker_server: Server, driver: ScriptDriver) -> Iterator[LeaseManager]:
    """The leases of a process."""
    with redis.Redis(port=broker_server.port) as client:
        yield LeaseManager(client, driver.space, driver.lease_ms, driver.max_stalls)


@pytest.mark.parametrize("wrong", [{"no": "text"}, "lone \ud800 surrogate"])
def test_an_outcome_that_cannot_be_sent_is_buried_and_holds_up_no_other(
    leases: LeaseManager, driver: ScriptDriver, wrong: Any
) -> None:
    for _ in range(5):
        driver.put()
    held = [cast("BrokerLease", taken.to_lease()) for taken in driver.take(5)]
    leases.add(held)
    for number, lease in enumerate(held):
        leases.settle(lease.delivery_tag, Completed("succeeded", wrong if number == 2 else "{}"))
    leases.flush_and_wait()
    counts = driver.control.counts("q")
    assert (counts.active, counts.dead) == (0, 1)
    (dead,) = driver.control.peek("q", "dead")
    assert (dead.run_id, dead.reason) == (held[2].run_id, "unsendable")
    assert [run for run, event in driver.events() if event == "succeeded"] == [
        lease.run_id for lease in held if lease is not held[2]
    ]


def test_a_worker_that_ends_by_its_own_error_counts_a_stall_for_what_it_executed(valkey_harness: BrokerHarness) -> None:
    """So nothing that makes it fail can end one worker after the other for ever."""
    harness = valkey_harness
    worker, first, rest = harness.worker_with_four("threads", module="tests.broker.fragile")
    harness.records.set("break", "1")
    wait_for(lambda: "stalled" in harness.states(first), 30, "the stall is counted")
    harness.release()  # a thread cannot be stopped
    assert worker.wait_ended(30) == 1
    assert {one.run_id: one.stalls for one in harness.control.peek("celery")} == {first: 1, **dict.fromkeys(rest, 0)}
