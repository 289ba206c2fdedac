"""A lease has one holder; what it loses comes back, counted."""

from tests.broker.script_driver import ScriptDriver


def test_an_ended_lease_is_taken_back_by_the_next_take(driver: ScriptDriver) -> None:
    driver.put("a")
    (first,) = driver.take()
    assert driver.take() == []
    driver.expire(first)
    (second,) = driver.take()
    assert (second.run_id, second.stalls, second.attempt) == ("a", 1, 1)
    assert driver.events() == [("a", "queued"), ("a", "stalled")]


def test_a_late_acknowledgement_changes_nothing(driver: ScriptDriver) -> None:
    driver.put("a")
    (late,) = driver.take()
    driver.expire(late)
    (now,) = driver.take()
    assert not driver.done(late)
    assert not driver.again(late)
    assert not driver.bury(late)
    assert not driver.give_back(late)
    assert driver.control.counts("q").active == 1
    assert driver.done(now)
    assert driver.all_keys() == set()


def test_a_lost_lease_is_known_at_renewal(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.put("b")
    first, other = driver.take(2)
    driver.expire(first)
    (now,) = driver.take()
    assert driver.renew(first, other, now) == [0]


def test_a_renewal_takes_nothing_out_of_the_line(driver: ScriptDriver) -> None:
    """Its lease was taken back, and nobody has taken it since."""
    driver.put("a")
    (late,) = driver.take()
    driver.expire(late)
    driver.control.pause("q")
    driver.take()
    assert driver.renew(late) == [0]
    counts = driver.control.counts("q")
    assert (counts.waiting, counts.active) == (1, 0)


def test_a_renewed_lease_is_not_taken_back(driver: ScriptDriver) -> None:
    driver.put("a")
    (taken,) = driver.take(lease_ms=1)
    driver.renew(taken)
    assert driver.take() == []


def test_more_than_max_stalls_is_a_dead_letter_with_the_original_bytes(driver: ScriptDriver) -> None:
    driver.put("a")
    for stall in range(driver.max_stalls + 1):
        (taken,) = driver.take()
        assert taken.stalls == stall
        driver.expire(taken)
    assert driver.take() == []
    assert driver.control.counts("q").dead == 1
    assert (peeked := driver.control.peek("q", "dead"))
    (letter,) = driver.take(1, "dead-letter")
    tag, payload, queue, run_id, attempt, stalls, reason, *_ = letter.dead
    assert (tag, queue, run_id, attempt, stalls, reason) == (b"a", b"q", b"a", b"1", b"4", b"stalled")
    assert payload == peeked[0].payload == driver.payload_of("a")


def test_the_dead_message_goes_only_when_its_letter_is_stored(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.bury(driver.take()[0])
    (letter,) = driver.take(1, "dead-letter")
    driver.again(letter)
    assert driver.control.counts("q").dead == 1
    (letter,) = driver.take(1, "dead-letter")
    driver.done(letter)
    assert driver.all_keys() == set()


def test_a_letter_is_never_buried_itself(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.bury(driver.take()[0])
    for _ in range(10):
        (letter,) = driver.take(1, "dead-letter")
        driver.lose(letter)
    (letter,) = driver.take(1, "dead-letter")
    driver.bury(letter)
    (letter,) = driver.take(1, "dead-letter")
    assert letter.dead[0] == b"a"


def test_a_retry_is_the_same_message_with_one_attempt_more(driver: ScriptDriver) -> None:
    driver.put("a")
    (first,) = driver.take()
    driver.again(first, 60_000)
    assert driver.control.counts("q").delayed == 1
    driver.make_due("a")
    (second,) = driver.take()
    assert (second.attempt, second.retries, second.payload) == (2, 1, first.payload)


def test_a_snooze_uses_no_attempt(driver: ScriptDriver) -> None:
    driver.put("a")
    driver.again(driver.take()[0], uses_attempt=False)
    (second,) = driver.take()
    assert (second.attempt, second.retries) == (1, 0)


def test_a_delayed_message_waits_for_its_time(driver: ScriptDriver) -> None:
    driver.put("a", eta="2999-01-01T00:00:00+00:00")
    assert driver.take() == []
    assert driver.next_look > 3600_000
    driver.make_due("a")
    assert driver.ids() == ["a"]


def test_nothing_is_left_when_all_is_done(driver: ScriptDriver) -> None:
    for number in range(20):
        driver.put(group_key=f"g{number % 3}" if number % 2 else None, dedup={"key": str(number), "mode": "until_done"})
    for taken in driver.take(50):
        driver.done(taken)
    driver.take()
    assert driver.all_keys() == set()
