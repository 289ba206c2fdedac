"""Who is next: priority, arrival, LIFO, groups, and several queues."""

from collections.abc import Callable

import pytest

from taskyard.broker.protocol.envelope import TakenMessage
from tests.broker.script_driver import ScriptDriver


def test_higher_priorities_go_first_and_arrival_decides_among_equals(driver: ScriptDriver) -> None:
    for priority in (0, 5, 9, 5, 0, 9):
        driver.put(priority=priority)
    assert driver.ids() == ["r00003", "r00006", "r00002", "r00004", "r00001", "r00005"]


def test_a_message_without_priority_is_normal(driver: ScriptDriver) -> None:
    message = driver.envelope("none")
    message["properties"]["priority"] = None
    driver.put("low", priority=4)
    driver.put_envelope(message)
    driver.put("high", priority=6)
    assert driver.ids() == ["high", "none", "low"]


def test_lifo_goes_before_all_of_its_priority_only(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.put("high", priority=9)
    driver.put("b", lifo=True)
    driver.put("c", lifo=True)
    assert driver.ids() == ["high", "c", "b", "a"]


def test_one_high_message_behind_fifty_low_ones_is_next(driver: ScriptDriver) -> None:
    for _ in range(50):
        driver.put(priority=1)
    driver.put("high", priority=9)
    assert driver.ids(1) == ["high"]


def test_groups_take_turns(driver: ScriptDriver) -> None:
    """Fifty groups of ten, put group by group: each group is served once per round."""
    for group in range(50):
        for number in range(10):
            driver.put(f"{group}-{number}", group_key=f"g{group}")
    taken = driver.ids(64) + driver.ids(64) + driver.ids(64) + driver.ids(64) + driver.ids(244)
    assert len(taken) == 500
    for round_number in range(10):
        served = taken[round_number * 50 : (round_number + 1) * 50]
        assert len({run.split("-")[0] for run in served}) == 50
        assert {run.split("-")[1] for run in served} == {str(round_number)}


def test_a_message_without_group_and_a_groups_turn_stand_in_one_line(driver: ScriptDriver) -> None:
    driver.put("g1", group_key="g")
    driver.put("single")
    driver.put("g2", group_key="g")
    assert driver.ids() == ["g1", "single", "g2"]


def test_a_high_message_of_a_group_overtakes_all_other_groups(driver: ScriptDriver) -> None:
    driver.put("a", group_key="a")
    driver.put("single")
    driver.put("b-low", group_key="b")
    driver.put("b-high", group_key="b", priority=9)
    assert driver.ids() == ["b-high", "a", "single", "b-low"]


def test_a_group_whose_high_message_was_removed_waits_at_the_priority_of_the_next_one(driver: ScriptDriver) -> None:
    driver.put("high", priority=9, group_key="g")
    driver.put("low", priority=1, group_key="g")
    driver.put("single")
    driver.control.remove("high")
    assert driver.ids() == ["single", "low"]


def test_a_returned_message_is_next_again(driver: ScriptDriver) -> None:
    for name in "abc":
        driver.put(name)
    first, second = driver.take(2)
    driver.give_back(second)
    driver.give_back(first)
    assert driver.ids() == ["a", "b", "c"]


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("ending", [ScriptDriver.again, ScriptDriver.give_back, ScriptDriver.lose, ScriptDriver.expire])
def test_what_comes_back_keeps_its_priority(
    driver: ScriptDriver, ending: Callable[[ScriptDriver, TakenMessage], object], group: str | None
) -> None:
    driver.put("high", priority=9, group_key=group)
    driver.put("low", priority=1, group_key=group)
    taken = driver.take(2)
    driver.put("normal", group_key=group)
    for one in taken:
        ending(driver, one)
    assert driver.ids() == ["high", "normal", "low"]


def test_two_queues_share_what_a_worker_takes(driver: ScriptDriver) -> None:
    for queue in ("one", "two"):
        driver.queue = queue
        for number in range(10):
            driver.put(f"{queue}{number}")
    taken = [taken.queue for taken in driver.take(8, "one", "two")]
    assert (taken.count("one"), taken.count("two")) == (4, 4)
    assert len(driver.take(50, "one", "two")) == 12


def test_the_same_put_twice_is_one_message(driver: ScriptDriver) -> None:
    """A producer that lost the answer repeats the put; kombu does it by itself."""
    driver.put("a")
    driver.put("a")
    assert driver.ids() == ["a"]


def test_another_message_with_the_same_run_id_is_kept(driver: ScriptDriver) -> None:
    """Celery's own retry and replace send a second message of a run that is still under a lease."""
    driver.put("a")
    message = driver.envelope("a")
    message["properties"]["delivery_tag"] = "other"
    driver.put_envelope(message)
    first, second = driver.take(5)
    assert (first.run_id, second.run_id) == ("a", "a")
    assert driver.done(first)
    assert driver.done(second)
    assert driver.all_keys() == set()
