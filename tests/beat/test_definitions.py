"""Bad input is refused with one clear line, before anything is saved; good input has one normal form."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.beat.definitions import checked
from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.cron import CronExpression
from taskyard.beat.timing.describe import timing_text
from tests.beat.simulation import definition

MARCH = datetime(2027, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "name ''"),
        ({"name": "a b"}, "name 'a b'"),
        ({"name": "x" * 129}, "1-128"),
        ({"task": "no.such.task"}, "unknown task 'no.such.task'"),
        ({"args": {}}, "label: Field required"),
        ({"args": {"label": "x", "colour": "red"}}, "colour: Extra inputs"),
        ({"args": {"label": 1}}, "label: Input should be a valid string"),
        ({"zone": "Mars/Olympus", "kind": "cron", "expression": "0 0 * * *"}, "zone 'Mars/Olympus'"),
        ({"zone": "../../etc/passwd", "kind": "cron", "expression": "0 0 * * *"}, "not a known time zone"),
        ({"zone": "Europe", "kind": "cron", "expression": "0 0 * * *"}, "not a known time zone"),
        ({"expression": "0"}, "from 1 second"),
        ({"expression": "0.999"}, "from 1 second"),
        ({"expression": "400d"}, "366 days"),
        ({"expression": "-5"}, "use a number of seconds"),
        ({"expression": "9" * 400}, "use a number of seconds"),
        ({"kind": "once", "expression": "tomorrow"}, "ISO 8601"),
        ({"kind": "yearly"}, "kind 'yearly'"),
        ({"misfire": "panic"}, "misfire 'panic'"),
        ({"misfire": "run_all", "misfire_limit": 101}, "from 1 to 100"),
        ({"overlap": "maybe"}, "overlap 'maybe'"),
        ({"priority": 10}, "priority 10"),
        ({"priority": "urgent"}, "priority 'urgent'"),
        ({"jitter": timedelta(seconds=-1)}, "jitter"),
        ({"jitter": timedelta(seconds=2)}, "jitter"),  # longer than the interval of a second
        ({"start": MARCH, "end": MARCH}, "start must lie before end"),
        ({"expression": "1d", "start": MARCH + timedelta(seconds=1), "end": MARCH + timedelta(hours=1)}, "no slot"),
        ({"start": datetime(2027, 3, 1)}, "has no time zone"),  # noqa: DTZ001 - that is the fault
        ({"note": "x" * 501}, "500 characters"),
    ],
)
def test_a_wrong_definition_is_refused_in_one_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidScheduleError) as refused:
        checked(definition(**fields))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000, "it may list what is known"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("61 * * * *", "cron minute field: 61 is not between 0 and 59"),
        ("* 25 * * *", "cron hour field: 25 is not between 0 and 23"),
        ("* * 0 * *", "cron day of month field: 0 is not between 1 and 31"),
        ("* * * 13 *", "cron month field: 13 is not between 1 and 12"),
        ("* * * FOO *", "'FOO' is not a number from 1 to 12, or JAN to DEC"),
        ("* * * * 8", "cron day of week field: 8 is not between 0 and 7"),
        ("5-1 * * * *", "the range 5-1 runs backwards"),
        ("? * * * *", "'?' stands for '*' in the fields of days only"),
        ("@reboot", "use one of @yearly"),
        ("*", "1 field;"),
        ("0 0 31 2 *", "no date can match"),
    ],
)
def test_a_wrong_cron_expression_is_told_what_is_allowed(expression: str, says: str) -> None:
    with pytest.raises(InvalidScheduleError) as refused:
        CronExpression(expression)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        (" @Hourly ", "0 * * * *"),
        ("0 0 ? * MON", "0 0 * * MON"),
        ("0 0 1 * ?", "0 0 1 * *"),
        ("0 0 0 ? * ?", "0 0 0 * * *"),
    ],
)
def test_shorthands_mean_what_they_mean_in_cron(given: str, meant: str) -> None:
    noon = datetime(2027, 3, 1, 12)  # noqa: DTZ001 - wall-clock time
    assert CronExpression(given).text == meant
    assert CronExpression(given).after(noon) == CronExpression(meant).after(noon)
    assert checked(definition(kind="cron", expression=given)).expression == meant


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "0 0 1--100000000 * *",
        "0 0 1-100000000 * *",
        "*/99999999999 * * * *",
        "*/0 * * * *",
        "60 * * * *",
        "0 24 * * *",
        "0 0 0 * *",
        "0 0 31 2 *",  # never
        "0 0 30 2 *",
        "0 0 * * 8",
        "0 0 * * MON#6",
        "5-1 * * * *",
        "@reboot",
        "0 0 * * *; rm",
        ",".join(["1"] * 70) + " * * * *",
        "1,2,3," * 1000 + " * * * *",
        "٣ * * * *",  # a digit, but none of ours
        "0 0 * FOO *",
    ],
)
def test_an_invalid_or_bombing_cron_is_refused_at_once(expression: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidScheduleError) as refused:
        CronExpression(expression)
    assert time.process_time() - began < 0.2
    assert "\n" not in str(refused.value)


@given(st.text(alphabet="0123456789*/,-#L WMONFRIJAN?", max_size=60))
def test_any_text_is_a_cron_expression_or_refused_within_a_bound(text: str) -> None:
    began = time.process_time()
    try:
        expression = CronExpression(text)
    except InvalidScheduleError:
        pass
    else:
        assert expression.after(datetime(2027, 1, 1)) is not None  # noqa: DTZ001 - wall clock
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("kind", "expression", "zone", "normal"),
    [
        ("every", "90s", "UTC", "90"),
        ("every", "1.5m", "UTC", "90"),
        ("every", "1.5", "UTC", "1.5"),
        ("every", "1d", "UTC", "86400"),
        ("cron", "  */3 *  * * * * ", "UTC", "*/3 * * * * *"),
        ("once", "2027-03-01T08:00", "Europe/Rome", "2027-03-01T07:00:00+00:00"),
        ("once", "2027-03-28T02:30", "Europe/Berlin", "2027-03-28T01:00:00+00:00"),  # left out: the end of the gap
        ("once", "2027-03-01T08:00+02:00", "Europe/Rome", "2027-03-01T06:00:00+00:00"),
    ],
)
def test_an_expression_has_one_normal_form(kind: str, expression: str, zone: str, normal: str) -> None:
    once = checked(definition(kind=kind, expression=expression, zone=zone))
    assert once.expression == normal
    assert checked(once) == once


@pytest.mark.parametrize(
    ("kind", "expression", "zone", "words"),
    [
        ("cron", "0 8 * * 1-5", "Europe/Rome", "weekdays 08:00 Europe/Rome"),
        ("cron", "30 2 * * *", "UTC", "daily 02:30 UTC"),
        ("cron", "15 30 2 * * *", "UTC", "daily 02:30:15 UTC"),
        ("cron", "0 9 * * 1", "UTC", "Mondays 09:00 UTC"),
        ("cron", "*/3 * * * * *", "UTC", "every third second of every minute UTC"),
        ("every", "30", "UTC", "every 30 s"),
        ("every", "300", "UTC", "every 5 min"),
        ("once", "2027-03-01T07:00:00+00:00", "Europe/Rome", "once 2027-03-01 08:00:00 Europe/Rome"),
    ],
)
def test_timings_read_as_a_person_says_them(kind: str, expression: str, zone: str, words: str) -> None:
    assert timing_text(kind, expression, zone) == words
