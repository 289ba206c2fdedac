"""What an answer means, and when the next attempt comes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.webhooks.delivery.classification import (
    DEFAULT_SCHEDULE,
    OVERLOAD_FLOOR,
    RETRY_AFTER_CAP,
    AttemptResult,
    classify,
    next_delay,
    parse_retry_after,
    pause_asked,
)
from taskyard.webhooks.http.response import Answer, ErrorCode

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(hours=24)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *[(status, AttemptResult.SUCCESS) for status in (200, 201, 202, 204, 206, 226, 299)],
        *[(status, AttemptResult.RETRY) for status in (101, 300, 301, 302, 303, 304, 307, 308)],
        *[(status, AttemptResult.RETRY) for status in (400, 401, 403, 404, 405, 408, 409, 413, 422, 425, 451, 499)],
        *[(status, AttemptResult.RETRY) for status in (500, 501, 505, 507, 520, 599, 600, 999)],
        *[(status, AttemptResult.RETRY_WITH_FLOOR) for status in (429, 502, 503, 504)],
        (410, AttemptResult.GONE),
    ],
)
def test_each_status_has_its_result(status: int, result: AttemptResult) -> None:
    assert classify(Answer(status=status)) is result


@pytest.mark.parametrize(
    ("error", "first", "third"),
    [
        (ErrorCode.DNS_ERROR, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.CONNECTION_REFUSED, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.CONNECTION_RESET, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.CONNECTION_FAILED, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.NETWORK_UNREACHABLE, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.TIMEOUT_CONNECT, AttemptResult.RETRY_WITH_FLOOR, AttemptResult.RETRY_WITH_FLOOR),
        (ErrorCode.TIMEOUT_TOTAL, AttemptResult.RETRY_WITH_FLOOR, AttemptResult.RETRY_WITH_FLOOR),
        (ErrorCode.TLS_ERROR, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.PROTOCOL_ERROR, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.RESPONSE_TOO_LARGE, AttemptResult.RETRY, AttemptResult.RETRY),
        (ErrorCode.TLS_NAME_MISMATCH, AttemptResult.RETRY, AttemptResult.TERMINAL),
        (ErrorCode.BLOCKED_ADDRESS, AttemptResult.RETRY, AttemptResult.TERMINAL),
        (ErrorCode.INVALID_URL, AttemptResult.RETRY, AttemptResult.TERMINAL),
        (ErrorCode.INVALID_REQUEST, AttemptResult.RETRY, AttemptResult.TERMINAL),
        (ErrorCode.UNSIGNED, AttemptResult.RETRY, AttemptResult.TERMINAL),
    ],
)
def test_each_error_has_its_result_and_wrong_registrations_end_on_the_third_attempt(
    error: ErrorCode, first: AttemptResult, third: AttemptResult
) -> None:
    answer = Answer.failed(error)
    assert (classify(answer), classify(answer, 2), classify(answer, 3)) == (first, first, third)


def test_every_error_code_is_in_the_table_above() -> None:
    assert len(ErrorCode) == 15


def test_the_operator_may_end_deliveries_by_status() -> None:
    terminal = frozenset({400, 401, 200, 410})
    assert classify(Answer(status=400), terminal_statuses=terminal) is AttemptResult.TERMINAL
    assert classify(Answer(status=402), terminal_statuses=terminal) is AttemptResult.RETRY
    assert classify(Answer(status=200), terminal_statuses=terminal) is AttemptResult.SUCCESS
    assert classify(Answer(status=410), terminal_statuses=terminal) is AttemptResult.GONE


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", None),
        ("0.0", None),
        ("-5", None),
        ("+5", None),
        ("1", 1),
        (" 120 ", 120),
        ("1.5", 2),
        ("0.001", 1),
        ("86400", 86400),
        ("86401", 86400),
        ("99999999999999999999", 86400),
        ("9" * 400, None),
        ("1e3", None),
        ("1_000", None),
        ("١٢", None),
        ("1.2.3", None),
        (".", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("5 seconds", None),
        ("Sat, 21 Nov 2026 12:01:00 GMT", 60),
        ("Saturday, 21-Nov-26 12:01:00 GMT", 60),
        ("Sat, 21 Nov 2026 12:00:00 GMT", None),
        ("Sat, 21 Nov 2026 11:59:59 GMT", None),
        ("Sat, 21 Nov 2026 12:01:00", 60),
        ("Sat, 21 Nov 2026 14:01:00 +0200", 60),
        ("Sat, 21 Nov 2099 12:00:00 GMT", 86400),
        ("Sat, 99 Nov 2026 12:00:00 GMT", None),
        ("Sat, 21 Nov 99999 12:00:00 GMT", None),
        ("Sat, 21 Nov 2026 12:01:00 +9999999", None),
        ("2026-11-21T12:01:00Z", None),
        ("\ufffd", None),
    ],
)
def test_retry_after_is_read_within_bounds(raw: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(raw, NOW) == expected


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ (GMT|[+-]\d+)"))
def test_any_retry_after_is_none_or_between_zero_and_the_cap(raw: str) -> None:
    found = parse_retry_after(raw, NOW)
    assert found is None or timedelta(0) < found <= RETRY_AFTER_CAP


@given(st.integers(1, 86400))
def test_a_date_means_the_same_as_its_seconds(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(date, NOW) == parse_retry_after(str(seconds), NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("status", "paused"), [(429, True), (503, True), (500, False), (200, False)])
def test_only_429_and_503_pause_the_whole_endpoint(status: int, *, paused: bool) -> None:
    asked = pause_asked(Answer(status=status, retry_after="30"), NOW)
    assert asked == (timedelta(seconds=30) if paused else None)


def test_the_default_schedule_makes_six_attempts() -> None:
    delays = [next_delay(attempt, jitter_source=lambda: 0.5) for attempt in range(1, 8)]
    assert delays == [*DEFAULT_SCHEDULE, None, None]
    assert [delay.total_seconds() for delay in DEFAULT_SCHEDULE] == [30, 300, 3600, 21600, 86400]


@pytest.mark.parametrize(
    ("jitter", "retry_after", "floor", "expected"),
    [
        (0.0, None, 0, 80),  # 100 - 20 %
        (0.5, None, 0, 100),
        (1.0, None, 0, 120),  # 100 + 20 %
        (0.5, 99, 0, 100),  # what was asked for is shorter
        (0.5, 7200, 0, 7200),
        (0.0, 90, 0, 90),  # not below what was asked for, whatever the jitter
        (0.0, None, 95, 95),
        (0.5, None, 60, 100),
        (0.5, 150, 200, 200),
    ],
)
def test_the_longest_of_schedule_request_and_floor_counts(
    jitter: float, retry_after: int | None, floor: int, expected: int
) -> None:
    schedule = [timedelta(seconds=100)]
    assert next_delay(
        1, schedule, lambda: jitter, at_least=timedelta(seconds=max(retry_after or 0, floor))
    ) == timedelta(seconds=expected)


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        next_delay(0)


DURATIONS = st.timedeltas(timedelta(0), timedelta(days=3))


@given(
    st.integers(1, 8),
    st.lists(DURATIONS, max_size=6),
    st.floats(0, 1),
    st.none() | st.timedeltas(timedelta(0), DAY),
    DURATIONS,
)
def test_a_delay_keeps_all_its_bounds(
    attempt: int, schedule: list[timedelta], jitter: float, asked: timedelta | None, floor: timedelta
) -> None:
    delay = next_delay(attempt, schedule, lambda: jitter, at_least=max(asked or timedelta(0), floor))
    if attempt > len(schedule):
        assert delay is None
        return
    assert delay is not None
    scheduled = schedule[attempt - 1]
    least = max(scheduled * 0.8, floor, asked or timedelta(0))
    assert (
        least - timedelta(milliseconds=1)
        <= delay
        <= max(scheduled * 1.2, floor, asked or timedelta(0)) + timedelta(milliseconds=1)
    )


def test_without_a_jitter_source_the_waits_differ() -> None:
    assert len({next_delay(5) for _ in range(20)}) > 1


def test_the_floor_for_overload_is_a_minute() -> None:
    assert timedelta(seconds=60) == OVERLOAD_FLOOR
