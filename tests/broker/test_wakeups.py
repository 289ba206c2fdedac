"""An idle worker waits for a marker: whatever makes a message available must leave one, or tell when to look again."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from taskyard.broker.protocol.envelope import TakenMessage
from tests.broker.script_driver import PREFIX, ScriptDriver

FAR, NEARER = "2999-01-01T00:00:00+00:00", "2998-01-01T00:00:00+00:00"
MARKER = f"{PREFIX}marker:q"
ENDINGS: dict[str, Callable[[ScriptDriver, TakenMessage], object]] = {
    "done": ScriptDriver.done,
    "dead": ScriptDriver.bury,
    "returned": ScriptDriver.give_back,
    "again now": ScriptDriver.again,
    "again later": lambda driver, taken: driver.again(taken, 60_000),
    "its process died": ScriptDriver.lose,
}
CHANGES: dict[str, Callable[[ScriptDriver], object]] = {
    "put": lambda driver: driver.put(),
    "put of a group": lambda driver: driver.put(group_key="g"),
    "put of what is due first": lambda driver: driver.put(eta=NEARER),
    "promoted": lambda driver: driver.control.promote("later"),
    "cancelled while it is delayed": lambda driver: driver.control.cancel("later"),
    "moved here": lambda driver: driver.control.move("elsewhere", "q"),
    "moved here while it is delayed": lambda driver: driver.control.move("elsewhere later", "q"),
}
LIMITS: dict[str, Callable[[ScriptDriver, bool], object]] = {
    "pause": lambda driver, is_on: (driver.control.pause if is_on else driver.control.resume)("q"),
    "concurrency": lambda driver, is_on: driver.control.set_concurrency("q", 1 if is_on else None),
    "rate": lambda driver, is_on: driver.control.set_rate_limit("q", 1 if is_on else None, timedelta(hours=1)),
    "concurrency of a key": lambda driver, is_on: driver.control.set_key_concurrency("q", 1 if is_on else None),
    "rate of a key": lambda driver, is_on: driver.control.set_key_rate_limit(
        "q", 1 if is_on else None, timedelta(hours=1)
    ),
}


def empty_look(driver: ScriptDriver) -> None:
    """Look as an idle worker does, until it finds nothing and no marker."""
    while driver.take() or driver.client.zpopmin(MARKER):
        pass


def is_woken(driver: ScriptDriver) -> bool:
    """Whether a worker that waits for the marker has it now."""
    return bool(driver.client.zpopmin(MARKER))


@pytest.mark.parametrize("change", CHANGES)
def test_what_comes_wakes_a_worker(driver: ScriptDriver, change: str) -> None:
    driver.put("later", eta=FAR)
    driver.queue = "other"
    driver.put("elsewhere")
    driver.put("elsewhere later", eta=NEARER)
    driver.queue = "q"
    empty_look(driver)
    CHANGES[change](driver)
    assert is_woken(driver)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("group", [None, "g"])
def test_a_slot_that_comes_free_wakes_a_worker(driver: ScriptDriver, ending: str, group: str | None) -> None:
    driver.put("first", group_key=group)
    driver.put("second", group_key=group)
    driver.put("soon", eta=(datetime.now(UTC) + timedelta(seconds=30)).isoformat())
    if group:
        driver.control.set_key_concurrency("q", 1)
    else:
        driver.control.set_concurrency("q", 1)
    (first,) = driver.take()
    empty_look(driver)
    ENDINGS[ending](driver, first)
    assert is_woken(driver)
    assert driver.take()


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_lifted_wakes_a_worker(driver: ScriptDriver, limit: str) -> None:
    driver.put("first", group_key="g")
    driver.put("second", group_key="g")
    driver.take()
    LIMITS[limit](driver, True)  # noqa: FBT003 - one table for both directions
    if limit.startswith("rate"):  # the first start uses it up
        driver.take()
        driver.put("third", group_key="g")
    empty_look(driver)
    LIMITS[limit](driver, False)  # noqa: FBT003 - as above
    assert is_woken(driver)
    assert driver.take()


def test_a_worker_that_leaves_messages_wakes_the_next_one(driver: ScriptDriver) -> None:
    driver.put()
    driver.put()
    driver.take()
    driver.client.delete(MARKER)
    driver.put()
    driver.client.delete(MARKER)
    driver.take()
    assert is_woken(driver)


def test_a_retry_that_is_due_first_wakes_a_worker(driver: ScriptDriver) -> None:
    driver.put("late", eta=FAR)
    driver.put("soon")
    (taken,) = driver.take()
    empty_look(driver)
    driver.again(taken, 60_000)
    assert is_woken(driver)


def test_an_idle_worker_knows_when_a_lease_ends(driver: ScriptDriver) -> None:
    driver.put()
    driver.take(lease_ms=5_000)
    assert driver.take() == []
    assert 0 < driver.next_look <= 5_001


def test_an_idle_worker_knows_when_a_group_may_run_again(driver: ScriptDriver) -> None:
    driver.control.set_key_rate_limit("q", 1, timedelta(seconds=5))
    driver.put("first", group_key="g")
    driver.put("second", group_key="g")
    driver.take(2, lease_ms=60_000)
    assert driver.take() == []
    assert 0 < driver.next_look <= 5_000


def test_an_idle_worker_knows_when_the_first_delay_ends(driver: ScriptDriver) -> None:
    driver.put("late", eta=FAR)
    driver.put("soon")
    driver.again(driver.take()[0], 5_000)
    assert driver.take() == []
    assert 0 < driver.next_look <= 5_000
