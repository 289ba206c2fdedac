"""What is fired, and what is missed, after an outage of each length."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskyard.beat.definitions import MISFIRES, Misfire
from taskyard.beat.engine.planning import Horizon, Plan, plan, run_id_of, shift_of
from taskyard.beat.timing.slots import COUNT_LIMIT, Every, Once, Series

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NONE = timedelta(0)


def after_an_outage(
    misfire: Misfire, seconds: float, *, limit: int = 1, every: timedelta = MINUTE, ahead: timedelta = NONE
) -> Plan:
    """The schedule was up to date at noon; it is so much later now."""
    horizon = Horizon(NOON + timedelta(seconds=seconds), ahead, grace=timedelta(seconds=30))
    return plan(Series(Every(every)), NONE, (misfire, limit), NOON, horizon)


def minutes(found: Plan) -> list[float]:
    return [(slot - NOON) / MINUTE for slot in found.fires]


@pytest.mark.parametrize(
    ("misfire", "limit", "seconds", "fires", "missed"),
    [
        ("skip", 1, 59.9, [], 0),
        ("skip", 1, 60.5, [1], 0),  # on time
        ("skip", 1, 85, [1], 0),  # 25 s late, within the grace, and no younger slot: a fail-over costs no slot
        ("skip", 1, 95, [], 1),  # 35 s late
        ("skip", 1, 300.2, [5], 4),
        ("run_once", 1, 95, [1], 0),
        ("run_once", 1, 330, [5], 4),  # one run stands for all five
        ("run_once", 1, 300.2, [5], 4),  # the slot that is on time does
        ("run_all", 3, 330, [3, 4, 5], 2),
        ("run_all", 3, 300.2, [2, 3, 4, 5], 1),  # three are made up for, and one is on time
        ("run_all", 100, 330, [1, 2, 3, 4, 5], 0),
    ],
)
def test_slots_that_passed_follow_the_policy(
    misfire: Misfire, limit: int, seconds: float, fires: list[float], missed: int
) -> None:
    found = after_an_outage(misfire, seconds, limit=limit)
    assert (minutes(found), found.missed) == (fires, missed)


def test_slots_ahead_are_fired_before_they_are_due() -> None:
    found = after_an_outage("skip", 0.2, every=timedelta(seconds=1), ahead=timedelta(seconds=5))
    assert len(found.fires) == 5
    assert found.cursor == NOON + timedelta(seconds=5)


@given(
    st.sampled_from(MISFIRES),
    st.integers(1, 100),
    st.floats(0, 400) | st.integers(0, 400),
    st.sampled_from((1, 2, 3, 4, 5, 6, 10, 12, 15, 20)),  # noon is a slot of each
    st.floats(0, 10) | st.integers(0, 10),
)
@example("run_all", 100, 400, 1, 0)  # two slots are on time, and more slots passed than are counted
def test_each_slot_is_fired_or_counted_and_none_is_touched_twice(
    misfire: Misfire, limit: int, seconds: float, every: int, ahead: float
) -> None:
    found = after_an_outage(
        misfire, seconds, limit=limit, every=timedelta(seconds=every), ahead=timedelta(seconds=ahead)
    )
    total = (timedelta(seconds=seconds) + timedelta(seconds=ahead)) // timedelta(seconds=every)
    assert len(found.fires) + found.missed == min(total, COUNT_LIMIT)
    assert list(found.fires) == sorted(set(found.fires))
    assert (found.newest_missed is None) == (found.missed == 0)
    if found.newest_missed and found.fires:
        assert found.newest_missed < found.fires[0]
    assert all(NOON < slot <= found.cursor for slot in found.fires)
    assert (found.newest_missed is not None) == (found.missed > 0)
    assert found.newest_missed not in found.fires
    if total:
        assert found.cursor == NOON + total * timedelta(seconds=every)


def test_a_day_of_seconds_is_counted_up_to_a_bound() -> None:
    found = after_an_outage("run_all", 86_400.5, limit=5, every=timedelta(seconds=1))
    assert len(found.fires) == 5 + 1
    assert not found.is_exact
    assert found.cursor == NOON + timedelta(days=1)


def test_a_one_off_that_passed_is_run_late_unless_its_policy_says_skip() -> None:
    horizon = Horizon(NOON + timedelta(hours=1), NONE, grace=timedelta(seconds=30))
    series, before = Series(Once(NOON)), NOON - timedelta(days=1)
    assert plan(series, NONE, ("run_once", 1), before, horizon).fires == (NOON,)
    assert plan(series, NONE, ("skip", 1), before, horizon).missed == 1


def test_a_shift_delays_all_slots_alike_and_lies_within_the_jitter() -> None:
    jitter = timedelta(seconds=20)
    shifts = {shift_of(uuid4(), jitter) for _ in range(200)}
    assert all(NONE <= shift < jitter for shift in shifts)
    assert len(shifts) > 150
    horizon = Horizon(NOON + MINUTE + timedelta(seconds=5), NONE, grace=MINUTE)
    assert plan(Series(Every(MINUTE)), timedelta(seconds=10), ("skip", 1), NOON, horizon).is_empty


def test_the_run_of_a_slot_has_one_id() -> None:
    schedule = uuid4()
    assert run_id_of(schedule, NOON) == run_id_of(schedule, datetime.fromisoformat("2026-11-20T12:00:00+00:00"))
    assert run_id_of(schedule, NOON) != run_id_of(schedule, NOON + timedelta(microseconds=1))
    assert run_id_of(schedule, NOON) != run_id_of(uuid4(), NOON)
