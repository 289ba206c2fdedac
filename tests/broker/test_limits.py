"""Pause, rates and concurrency, decided where messages are handed out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from taskyard.broker.protocol.envelope import TakenMessage
from taskyard.broker.scripts.runner import run_script
from tests.broker.script_driver import PREFIX, ScriptDriver
from tests.waiting import wait_for


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.control.pause("q", by="ann", reason="migration")
    assert driver.ids() == []
    limits = driver.control.limits("q")
    assert (limits.is_paused, limits.paused_by, limits.pause_reason) == (True, "ann", "migration")
    driver.control.resume("q")
    assert driver.ids() == ["a"]


def test_a_pause_with_an_end_ends_by_itself(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.control.pause("q", until=datetime.now(UTC) + timedelta(milliseconds=300))
    assert driver.ids() == []
    wait_for(lambda: driver.ids() == ["a"], 5, "the pause ended")
    assert not driver.control.counts("q").is_paused


def test_a_concurrency_limit_counts_leases(driver: ScriptDriver) -> None:
    for _ in range(10):
        driver.put()
    driver.control.set_concurrency("q", 3)
    first, *_ = driver.take(10)
    assert driver.control.counts("q").active == 3
    assert driver.ids() == []
    driver.expire(first)
    assert driver.ids(10) == [first.run_id]


def test_a_key_concurrency_limit_holds_for_each_group(driver: ScriptDriver) -> None:
    driver.control.set_key_concurrency("q", 2)
    for number in range(5):
        driver.put(f"a{number}", group_key="a")
        driver.put(f"b{number}", group_key="b")
    taken = driver.take(10)
    assert sorted(message.run_id for message in taken) == ["a0", "a1", "b0", "b1"]
    driver.done(next(message for message in taken if message.run_id == "a0"))
    assert driver.ids() == ["a2"]


def test_a_wider_limit_lets_parked_groups_run(driver: ScriptDriver) -> None:
    driver.control.set_key_concurrency("q", 1)
    driver.put("a0", group_key="a")
    driver.put("a1", group_key="a")
    assert driver.ids() == ["a0"]
    assert driver.ids() == []
    driver.control.set_key_concurrency("q", None)
    assert driver.ids() == ["a1"]


def test_one_limited_group_does_not_hold_up_the_others(driver: ScriptDriver) -> None:
    driver.control.set_key_rate_limit("q", 1, timedelta(hours=1))
    for number in range(300):
        driver.put(f"busy{number}", group_key="busy")
    for number in range(3):
        driver.put(f"g{number}", group_key=f"g{number}")
    driver.put("single")
    assert driver.ids() == ["busy0", "g0", "g1", "g2", "single"]


@pytest.mark.parametrize("is_per_key", [False, True])
def test_no_sliding_window_holds_more_starts_than_the_limit_and_one(driver: ScriptDriver, is_per_key: bool) -> None:  # noqa: FBT001 - a parameter of the test
    limit, window = 50, 0.5  # per half second
    for _ in range(150):
        driver.put(group_key="g" if is_per_key else None)
    set_limit = driver.control.set_key_rate_limit if is_per_key else driver.control.set_rate_limit
    set_limit("q", limit, timedelta(seconds=window))
    starts: list[float] = []
    end = monotonic() + 1.4
    while monotonic() < end:
        starts += [driver.handed_out_at(taken) for taken in driver.take(10)]
    most = max(sum(1 for at in starts if since <= at < since + window) for since in starts)
    assert most <= limit + 1
    assert len(starts) > limit  # it slows, and does not stop


def test_a_rate_limit_tells_when_to_look_again(driver: ScriptDriver) -> None:
    driver.control.set_rate_limit("q", 1, timedelta(seconds=10))
    driver.put()
    driver.put()
    driver.take()
    assert driver.take() == []
    assert 5_000 < driver.next_look <= 10_000


@pytest.mark.parametrize("is_per_key", [False, True])
@pytest.mark.parametrize(
    "ending", [ScriptDriver.again, ScriptDriver.give_back, ScriptDriver.lose, ScriptDriver.expire, ScriptDriver.done]
)
def test_an_execution_that_ends_gives_its_start_back_to_no_rate(
    driver: ScriptDriver,
    ending: Callable[[ScriptDriver, TakenMessage], object],
    is_per_key: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    set_limit = driver.control.set_key_rate_limit if is_per_key else driver.control.set_rate_limit
    set_limit("q", 1, timedelta(hours=1))
    driver.put(group_key="g")
    (taken,) = driver.take()
    ending(driver, taken)
    driver.put(group_key="g")
    assert driver.take() == []


def test_a_message_that_needs_no_acknowledgement_holds_no_slot(driver: ScriptDriver) -> None:
    driver.control.set_key_concurrency("q", 1)
    for _ in range(3):
        driver.put(group_key="g")
        taken = run_script(
            driver.client, driver.space, "take", driver.lease_ms, driver.max_stalls, 5, "driver", "", 0, "q", "1"
        )[1:]
        assert len(taken) == 1
    assert driver.all_keys() == {f"{PREFIX}limits:q"}


def test_limits_leave_no_key_when_they_are_lifted(driver: ScriptDriver) -> None:
    driver.control.pause("q")
    driver.control.set_rate_limit("q", 5)
    driver.control.set_concurrency("q", 5)
    driver.control.set_key_rate_limit("q", 5)
    driver.control.set_key_concurrency("q", 5)
    driver.control.resume("q")
    driver.control.set_rate_limit("q", None)
    driver.control.set_concurrency("q", None)
    driver.control.set_key_rate_limit("q", None)
    driver.control.set_key_concurrency("q", None)
    assert driver.all_keys() == set()
