"""A worker spares Python's collector of cycles what stays for good, and still gets rid of what tasks leave behind."""

import pytest

from tests.broker.harness import POOLS, BrokerHarness

CYCLES = 100_000
MOST = 60_000  # of them may be there still: the collector looks at each 10,000 new objects, and a cycle is two or more
START_UP = 50_000  # objects; a worker's imports make more


@pytest.mark.parametrize("pool", POOLS)
def test_what_start_up_made_is_spared_and_cycles_of_tasks_are_collected(
    valkey_harness: BrokerHarness, pool: str
) -> None:
    valkey_harness.send("litter", CYCLES)
    valkey_harness.worker(pool, 1)

    valkey_harness.wait_empty()

    (line,) = valkey_harness.lines()
    _, kept, spared = line.split()
    assert int(kept) < MOST
    assert int(spared) > START_UP
