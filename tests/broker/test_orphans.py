"""Work whose channel is gone: it counts as prefetched until it ends, and not a moment longer."""

import threading
from collections.abc import Iterator

import pytest
import redis

from taskyard.broker.leases.manager import Leases
from taskyard.broker.protocol.outcomes import Done, Lease
from tests.broker.script_driver import ScriptDriver
from tests.servers import Server


@pytest.fixture
def leases(broker_server: Server, driver: ScriptDriver) -> Iterator[Leases]:
    """The leases of a process."""
    with redis.Redis(port=broker_server.port) as client:
        yield Leases(client, driver.space, driver.lease_ms, driver.max_stalls)


def hold(leases: Leases, driver: ScriptDriver, runs: str) -> list[str]:
    """Take so many messages; returns their delivery tags."""
    for run in runs:
        driver.put(run)
    found = [lease for lease in (taken.to_lease() for taken in driver.take(len(runs))) if lease is not None]
    leases.hold(found)
    return [lease.delivery_tag for lease in found]


class EndsInThatMoment(dict[str, Lease]):
    """What is held, and a thread of the pool that ends each as soon as somebody has seen that it is held."""

    def __init__(self, leases: Leases) -> None:
        super().__init__(leases._held)
        self._leases = leases

    def __contains__(self, tag: object) -> bool:
        is_held = super().__contains__(tag)
        if is_held:
            thread = threading.Thread(target=self._leases.end, args=(tag, Done("succeeded")))
            thread.start()
            thread.join()
        return is_held


def test_what_runs_on_counts_until_it_ends(leases: Leases, driver: ScriptDriver) -> None:
    first, second = hold(leases, driver, "ab")
    leases.orphan([first, second])
    assert list(leases.orphans) == [first, second]
    leases.end(first, Done("succeeded"))
    assert list(leases.orphans) == [second]
    leases.end(second, Done("succeeded"))
    leases.finish()
    assert driver.all_keys() == set()


def test_what_ends_while_its_channel_goes_keeps_no_slot(leases: Leases, driver: ScriptDriver) -> None:
    """A thread acknowledges without waiting for the loop, which is just noting that the connection is lost."""
    tags = hold(leases, driver, "abc")
    leases._held = EndsInThatMoment(leases)
    leases.orphan(tags)
    assert leases.orphans == {}
    leases.finish()
    assert driver.all_keys() == set()
