"""Next slots: laws against a slow reference, and a table of the days on which the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.cron import CronExpression
from taskyard.beat.timing.slots import COUNT_LIMIT, Cron, Every, Once, Series, slots_between
from tests.beat import reference

BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def possible(text: str) -> CronExpression:
    """Draw again what names a day that its months never have, such as 30 February: it is refused when it is saved."""
    try:
        return CronExpression(text)
    except InvalidScheduleError as error:
        assume("bad day-of-month" not in str(error))
        raise


def walk(timing: Cron, after: datetime, until: datetime) -> list[datetime]:
    found, slot = [], timing.after(after)
    while slot is not None and slot <= until:
        found.append(slot)
        slot = timing.after(slot)
    return found


@given(st.data(), st.sampled_from(reference.ZONES))
@settings(max_examples=150, deadline=None)
def test_slots_of_five_fields_are_those_of_the_reference(data: st.DataObject, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    expression = data.draw(reference.expressions(has_seconds=False))
    after = data.draw(reference.moments(zone))
    until = after + timedelta(hours=40)
    ours = walk(Cron(possible(expression.text), zone), after, until)
    assert ours == reference.slots(expression, zone, after, until), expression.text


@given(st.data(), st.sampled_from(reference.ZONES))
@settings(max_examples=40, deadline=None)
def test_slots_of_six_fields_are_those_of_the_reference(data: st.DataObject, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    expression = data.draw(reference.expressions(has_seconds=True))
    after = data.draw(reference.moments(zone))
    until = after + timedelta(hours=2)
    ours = walk(Cron(possible(expression.text), zone), after, until)
    assert ours == reference.slots(expression, zone, after, until), expression.text


@given(st.data(), st.sampled_from(reference.ZONES))
@settings(max_examples=60, deadline=None)
def test_the_next_slot_does_not_depend_on_where_the_search_begins(data: st.DataObject, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    timing = Cron(possible(data.draw(reference.expressions(has_seconds=False)).text), zone)
    after = data.draw(reference.moments(zone))
    slot = timing.after(after)
    if slot is not None:
        between = after + (slot - after) * data.draw(st.floats(0, 0.999))
        assert timing.after(between) == slot
        assert slot.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("expression", "day", "expected"),
    [
        # 29 March 2026, Berlin: 02:00-03:00 is left out; 01:00 UTC is 03:00 local
        ("30 2 * * *", "2026-03-29", ["01:00:00"]),
        ("0 30 2 * * *", "2026-03-29", ["01:00:00"]),
        ("0,30 1-3 * * *", "2026-03-29", ["00:00:00", "00:30:00", "01:00:00", "01:30:00"]),
        ("30 */1 * * *", "2026-03-29", [f"{h:02}:30:00" for h in range(22)]),
        # 25 October 2026, Berlin: 02:00-03:00 comes twice; 00:30 and 01:30 UTC are both 02:30 local
        ("30 2 * * *", "2026-10-25", ["00:30:00"]),
        ("0 30 2 * * *", "2026-10-25", ["00:30:00"]),
        ("*/30 2 * * *", "2026-10-25", ["00:00:00", "00:30:00", "01:00:00", "01:30:00"]),
        ("0 3 * * *", "2026-10-25", ["02:00:00"]),
    ],
)
def test_days_on_which_the_clocks_change(expression: str, day: str, expected: list[str]) -> None:
    timing = Cron(CronExpression(expression), BERLIN)
    begin = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=BERLIN).astimezone(UTC)
    found = walk(timing, begin - timedelta(seconds=1), end - timedelta(seconds=1))
    assert [f"{slot:%H:%M:%S}" for slot in found if f"{slot:%F}" == day] == expected


def test_every_day_of_the_year_has_one_half_past_two() -> None:
    found = walk(Cron(CronExpression("30 2 * * *"), BERLIN), utc("2025-12-31T23:00"), utc("2026-12-31T23:00"))
    assert [slot.astimezone(BERLIN).date() for slot in found] == [
        datetime(2026, 1, 1, tzinfo=UTC).date() + timedelta(days=n) for n in range(365)
    ]


def test_a_yearly_slot_in_the_doubled_hour_comes_twice_when_it_follows_elapsed_time() -> None:
    """The next match on the wall is a year away and has the same offset as now: the second pass must not be lost."""
    timing = Cron(CronExpression("*/30 2 25 10 *"), BERLIN)
    assert timing.after(utc("2026-10-25T00:45")) == utc("2026-10-25T01:00")


def test_a_three_second_cron_has_a_slot_every_three_seconds() -> None:
    timing = Cron(CronExpression("*/3 * * * * *"), ZoneInfo("Asia/Tokyo"))
    found = walk(timing, utc("2026-11-20T10:00:00"), utc("2026-11-20T10:00:09"))
    assert [slot.second for slot in found] == [3, 6, 9]


def test_intervals_are_aligned_to_the_clock() -> None:
    assert Every(timedelta(seconds=30)).after(utc("2026-11-20T10:00:29.5")) == utc("2026-11-20T10:00:30")
    assert Every(timedelta(seconds=30)).after(utc("2026-11-20T10:00:30")) == utc("2026-11-20T10:01:00")


def test_a_series_begins_with_its_start_and_ends_before_its_end() -> None:
    series = Series(Every(timedelta(minutes=1)), utc("2026-11-20T10:00"), utc("2026-11-20T10:02"))
    found = slots_between(series, utc("2026-01-01T00:00"), utc("2026-12-01T00:00"), keep=10)
    assert found.newest == (utc("2026-11-20T10:00"), utc("2026-11-20T10:01"))
    assert found.is_exact


def test_one_off_has_one_slot() -> None:
    at = utc("2026-11-20T10:00")
    assert Once(at).after(at - timedelta(days=9)) == at
    assert Once(at).after(at) is None


@given(st.integers(0, 20_000), st.integers(1, 50), st.integers(1, 7))
def test_a_long_outage_gives_the_newest_slots_and_a_bounded_count(length: int, keep: int, every: int) -> None:
    begin = utc("2026-11-20T00:00")
    span = timedelta(seconds=length)
    series = Series(Every(timedelta(seconds=every)))
    due = slots_between(series, begin, begin + span, keep)
    everything = [begin + timedelta(seconds=n) for n in range(1, length + 1) if (begin.timestamp() + n) % every == 0]
    assert list(due.newest[-keep:]) == everything[-keep:]
    assert due.is_exact == (len(everything) < COUNT_LIMIT)
    assert due.count == min(len(everything), COUNT_LIMIT)


@pytest.mark.parametrize("timing", [Every(timedelta(hours=1)), Cron(CronExpression("* * * * *"), ZoneInfo("UTC"))])
def test_after_the_last_day_of_the_calendar_no_slot_is_left(timing: Every | Cron) -> None:
    assert Series(timing).after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) is None
