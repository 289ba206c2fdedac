"""What an operator can see and do while workers run."""

from datetime import timedelta

import pytest

from taskyard.broker.admin.queue_control import MessageBusyError, MessageNotFoundError
from tests.broker.script_driver import PREFIX, ScriptDriver

FAR = "2999-01-01T00:00:00+00:00"


def test_counts_are_true(driver: ScriptDriver) -> None:
    for group in (None, "g", None, "g", "h"):
        driver.put(group_key=group)
    driver.put(eta=FAR)
    first, second = driver.take(2)
    driver.bury(second)
    counts = driver.control.counts("q")
    assert (counts.waiting, counts.delayed, counts.active, counts.dead) == (3, 1, 1, 1)
    assert counts.oldest_age is not None
    assert timedelta(0) <= counts.oldest_age < timedelta(minutes=1)
    assert driver.done(first)


def test_an_empty_queue_has_no_age(driver: ScriptDriver) -> None:
    assert driver.control.counts("nowhere").oldest_age is None


def test_peek_shows_the_next_ones_and_changes_nothing(driver: ScriptDriver) -> None:
    driver.put("a", group_key="g")
    driver.put("b", priority=9)
    peeked = driver.control.peek("q")
    assert [(one.run_id, one.priority, one.group_key, one.task) for one in peeked] == [
        ("b", 9, None, "t"),
        ("a", 5, "g", "t"),
    ]
    assert driver.ids() == ["b", "a"]


def test_a_moved_message_waits_in_the_other_queue_with_its_priority(driver: ScriptDriver) -> None:
    driver.put("low", priority=1)
    driver.put("a", priority=9, group_key="g")
    driver.put("later", eta=FAR)
    for run in ("low", "a", "later"):
        driver.control.move(run, "other")
    assert driver.control.counts("other").delayed == 1
    assert [taken.run_id for taken in driver.take(5, "other")] == ["a", "low"]


def test_a_promoted_message_is_not_delayed_any_more(driver: ScriptDriver) -> None:
    driver.put("a", eta=FAR)
    driver.control.promote("a")
    assert driver.ids() == ["a"]


def test_a_removed_message_is_recorded_as_cancelled(driver: ScriptDriver) -> None:
    driver.put("a", group_key="g")
    driver.put("b", eta=FAR)
    for run in "ab":
        driver.control.remove(run, by="ann", reason="wrong")
    assert driver.events()[-2:] == [("a", "cancelled"), ("b", "cancelled")]
    assert driver.details("a")[-1] == {"by": "ann", "reason": "wrong"}
    assert driver.all_keys() == set()


def test_a_group_whose_last_message_is_removed_is_forgotten(driver: ScriptDriver) -> None:
    driver.control.set_key_concurrency("q", 1)
    for run in "abc":
        driver.put(run, group_key=None if run == "c" else "g", priority=0 if run == "c" else 5)
    (first,) = driver.take()
    driver.control.pause("q")
    driver.control.resume("q")
    assert driver.ids() == ["c"]  # the group waits for the end of its first one
    driver.put("d")
    driver.control.remove("b")
    names = {name for name in driver.all_keys() if not name.startswith(f"{PREFIX}message:")}
    assert names == {
        f"{PREFIX}{name}" for name in ("active:q", "limits:q", "marker:q", "running:q:g", "seq:q", "waiting:q")
    }
    assert driver.done(first)


def test_what_a_worker_has_cannot_be_moved_promoted_or_removed(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.take()
    with pytest.raises(MessageBusyError):
        driver.control.move("a", "x")
    with pytest.raises(MessageBusyError):
        driver.control.promote("a")
    with pytest.raises(MessageBusyError):
        driver.control.remove("a")


def test_an_unknown_run_is_an_error(driver: ScriptDriver) -> None:
    with pytest.raises(MessageNotFoundError):
        driver.control.move("no", "x")
    with pytest.raises(MessageNotFoundError):
        driver.control.remove("no")
    with pytest.raises(MessageNotFoundError):
        driver.control.explain("no")


def test_drain_leaves_delayed_ones_and_purge_leaves_only_what_runs(driver: ScriptDriver) -> None:
    for group in (None, "g", "h"):
        driver.put(group_key=group)
    driver.put("later", eta=FAR)
    driver.put("running", priority=9)
    (running,) = driver.take()
    assert driver.control.drain("q") == 3
    assert driver.control.purge("q") == 1
    assert driver.done(running)
    assert driver.all_keys() == set()


def test_a_cancelled_delayed_message_comes_at_once_marked(driver: ScriptDriver) -> None:
    driver.put("a", eta=FAR)
    assert driver.control.cancel("a", by="ann") == "delayed"
    (taken,) = driver.take()
    assert '"by":"ann"' in taken.cancelled_by


def test_a_cancel_before_the_message_is_remembered(driver: ScriptDriver) -> None:
    assert driver.control.cancel("a") == "unknown"
    driver.put("a")
    assert driver.take()[0].cancelled_by


def test_a_cancelled_run_does_not_start_again_after_a_retry(driver: ScriptDriver) -> None:
    driver.put("a")
    (taken,) = driver.take()
    assert driver.control.cancel("a") == "active"
    driver.again(taken)
    assert driver.take()[0].cancelled_by


def test_explain_says_what_holds_a_run_back(driver: ScriptDriver) -> None:
    for name in "abc":
        driver.put(name, group_key="g")
    assert driver.control.explain("c").place == 2
    assert "no worker takes from queue q" in driver.control.explain("a").reasons
    driver.renew()
    driver.control.pause("q", by="ann", reason="migration")
    assert "queue q is paused by ann: migration" in driver.control.explain("a").reasons
    driver.control.resume("q")
    driver.control.set_key_concurrency("q", 1)
    driver.take(3)
    assert driver.control.explain("a").state == "active"
    assert "1 of at most 1 messages of group g are being worked on" in driver.control.explain("b").reasons


def test_explain_says_when_a_delayed_run_is_due(driver: ScriptDriver) -> None:
    driver.put("a", eta=FAR)
    explanation = driver.control.explain("a")
    assert explanation.state == "delayed"
    assert explanation.left is not None
    assert explanation.left > timedelta(days=365)
