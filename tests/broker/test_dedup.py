"""One run per dedup key: until it is done, for a time, or the last one after quiet."""

from datetime import UTC, datetime, timedelta

from tests.broker.script_driver import ScriptDriver
from tests.waiting import wait_for

UNTIL_DONE = {"key": "k", "mode": "until_done", "ttl_ms": None}


def test_a_duplicate_names_the_run_that_is_there(driver: ScriptDriver) -> None:
    assert driver.put("a", dedup=UNTIL_DONE) == ""
    assert driver.put("b", dedup=UNTIL_DONE) == "a"
    assert driver.ids() == ["a"]


def test_the_key_is_held_over_retries_and_stalls_and_free_when_done(driver: ScriptDriver) -> None:
    driver.put("a", dedup=UNTIL_DONE)
    driver.again(driver.take()[0])
    assert driver.put("b", dedup=UNTIL_DONE) == "a"
    (taken,) = driver.take()
    driver.expire(taken)
    (taken,) = driver.take()
    assert driver.put("b", dedup=UNTIL_DONE) == "a"
    driver.done(taken)
    assert driver.put("b", dedup=UNTIL_DONE) == ""


def test_a_dead_message_frees_its_key(driver: ScriptDriver) -> None:
    driver.put("a", dedup=UNTIL_DONE)
    driver.bury(driver.take()[0])
    assert driver.put("b", dedup=UNTIL_DONE) == ""


def test_a_removed_message_frees_its_key(driver: ScriptDriver) -> None:
    driver.put("a", dedup=UNTIL_DONE)
    driver.control.remove("a")
    assert driver.put("b", dedup=UNTIL_DONE) == ""


def test_a_throttle_lasts_its_time_whether_the_run_is_done_or_not(driver: ScriptDriver) -> None:
    throttle = {"key": "k", "mode": "throttle", "ttl_ms": 300}
    driver.put("a", dedup=throttle)
    driver.done(driver.take()[0])
    assert driver.put("b", dedup=throttle) == "a"
    wait_for(lambda: driver.put("c", dedup=throttle) == "", 5, "the throttle ended")
    assert driver.ids() == ["c"]


def test_a_debounce_keeps_the_last_one_after_quiet(driver: ScriptDriver) -> None:
    debounce = {"key": "k", "mode": "debounce", "ttl_ms": 60_000}
    for name in "abc":
        assert driver.put(name, dedup=debounce) == ""
    assert driver.control.counts("q").delayed == 1
    (peeked,) = driver.control.peek("q", "delayed")
    assert peeked.run_id == "c"
    assert peeked.at is not None
    assert timedelta(seconds=50) < peeked.at - datetime.now(UTC) <= timedelta(seconds=61)
    assert ("a", "cancelled") in driver.events()
    assert ("b", "cancelled") in driver.events()


def test_a_debounce_after_the_last_one_ran_starts_anew(driver: ScriptDriver) -> None:
    debounce = {"key": "k", "mode": "debounce", "ttl_ms": 60_000}
    driver.put("a", dedup=debounce)
    driver.make_due("a")
    (running,) = driver.take()
    driver.put("b", dedup=debounce)
    assert driver.control.counts("q").delayed == 1
    assert driver.done(running)
    assert driver.put("c", dedup=debounce) == ""
    assert [peeked.run_id for peeked in driver.control.peek("q", "delayed")] == ["c"]
