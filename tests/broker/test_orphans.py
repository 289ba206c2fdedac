"""Work whose channel is gone: it counts as prefetched until it ends, and not a moment longer."""

import threading
from collections.abc import Iterator

import pytest
import redis

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.outcomes import BrokerLease, Completed
from tests.broker.script_driver import ScriptDriver
from tests.servers import Server


@pytest.fixture
def leases(broker_server: Server, driver: ScriptDriver) -> Iterator[LeaseManager]:
    """The leases of a process."""
    with redis.Redis(port=broker_server.port) as client:
        yield LeaseManager(client, driver.space, driver.lease_ms, driver.max_stalls)


def hold(leases: LeaseManager, driver: ScriptDriver, runs: str) -> list[str]:
    """Take so many messages; returns their delivery tags."""
    for run in runs:
        driver.put(run)
    found = [lease for lease in (taken.to_lease() for taken in driver.take(len(runs))) if lease is not None]
    leases.add(found)
    return [lease.delivery_tag for lease in found]


class EndsInThatMoment(dict[str, BrokerLease]):
    """What is held, and a thread of the pool that ends each as soon as somebody has seen that it is held."""

    def __init__(self, leases: LeaseManager) -> None:
        super().__init__(leases._leases)
        self._leases = leases

    def __contains__(self, tag: object) -> bool:
        is_held = super().__contains__(tag)
        if is_held:
            thread = threading.Thread(target=self._leases.settle, args=(tag, Completed("succeeded")))
            thread.start()
            thread.join()
        return is_held


def test_what_runs_on_counts_until_it_ends(leases: LeaseManager, driver: ScriptDriver) -> None:
    first, second = hold(leases, driver, "ab")
    leases.orphan([first, second])
    assert list(leases.orphans) == [first, second]
    leases.settle(first, Completed("succeeded"))
    assert list(leases.orphans) == [second]
    leases.settle(second, Completed("succeeded"))
    leases.flush_and_wait()
    assert driver.all_keys() == set()


def test_what_ends_while_its_channel_goes_keeps_no_slot(leases: LeaseManager, driver: ScriptDriver) -> None:
    """A thread acknowledges without waiting for the loop, which is just noting that the connection is lost."""
    tags = hold(leases, driver, "abc")
    leases._leases = EndsInThatMoment(leases)
    leases.orphan(tags)
    assert leases.orphans == {}
    leases.flush_and_wait()
    assert driver.all_keys() == set()
