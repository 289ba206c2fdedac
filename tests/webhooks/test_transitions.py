"""What an answer does to its delivery and its endpoint: the schedule, the end, and the owner's notice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import UUID

import pytest

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.lanes import UNPROVEN
from taskyard.webhooks.delivery.store import Claim
from taskyard.webhooks.event_types import ENDPOINT_DISABLED
from taskyard.webhooks.http.response import Answer, ErrorCode, Phases
from taskyard.webhooks.models import Delivery, Endpoint
from tests.webhooks.webhook_rows import WebhookRows, no_answer, status

SHORT = (timedelta(seconds=30), timedelta(minutes=5))


def test_each_attempt_is_a_row_with_its_answer(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    answer = Answer(
        status=500,
        excerpt="broken \u2603",
        truncated=True,
        phases=Phases(dns_ms=1.234, ttfb_ms=20.0, total_ms=25.6),
        remote_ip="127.0.0.1",
    )

    webhook_rows.attempt(delivery, answer, no_answer(ErrorCode.TIMEOUT_TOTAL))

    first, second = webhook_rows.attempts(delivery)
    assert (first.status, first.error, first.excerpt, first.truncated) == (500, None, "broken \u2603", True)
    assert (first.total_ms, first.phases) == (26, {"dns_ms": 1.23, "ttfb_ms": 20.0})
    assert (first.worker, first.trigger, first.by) == ("worker-1", "schedule", None)
    assert (second.status, second.error) == (None, "timeout_total")
    assert second.next_attempt_at == webhook_rows.delivery(delivery).next_attempt_at
    assert webhook_rows.delivery(delivery).last_error == "timeout_total"


def test_the_waits_follow_the_schedule_and_after_the_sixth_attempt_it_is_exhausted(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows = webhook_rows.tuned(WEBHOOK_BREAKER_FAILURES="100")

    outcomes = [webhook_rows.attempt(delivery, status(500)) for _ in range(6)]

    assert [outcome.retry_in and outcome.retry_in.total_seconds() for outcome in outcomes] == [
        30,
        300,
        3600,
        21_600,
        86_400,
        None,
    ]
    row = webhook_rows.delivery(delivery)
    assert (row.state, row.attempts, row.failures, row.next_attempt_at) == ("exhausted", 6, 6, None)
    assert row.finished_at is not None


def test_a_wait_beyond_the_brokers_stays_in_sql(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=(timedelta(seconds=30), timedelta(hours=1)))
    (delivery,) = webhook_rows.emit()

    webhook_rows.attempt(delivery, status(500))
    assert webhook_rows.delivery(delivery).enqueued_at == webhook_rows.delivery(delivery).next_attempt_at
    webhook_rows.attempt(delivery, status(500))

    assert webhook_rows.delivery(delivery).enqueued_at is None


def test_a_connection_that_closed_after_the_request_is_an_attempt_and_the_next_one_comes_at_once(
    webhook_rows: WebhookRows,
) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    closed = replace(no_answer(ErrorCode.CONNECTION_RESET), is_stale=True)

    first, second = webhook_rows.attempt(delivery, closed), webhook_rows.attempt(delivery, closed)

    assert [attempt.error for attempt in webhook_rows.attempts(delivery)] == ["connection_reset"] * 2
    assert (first.retry_in, second.retry_in) == (timedelta(0), timedelta(minutes=5)), "then on schedule"


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        (None, 60),  # the floor after a 429
        ("90", 90),
        ("45", 60),
        ("90.2", 91),
        ("garbage", 60),
        ("99999999", 86_400),  # the cap
    ],
)
def test_a_throttled_delivery_waits_for_the_longest_of_schedule_floor_and_request(
    sqlite_webhook_rows: WebhookRows, retry_after: str | None, expected: int
) -> None:
    sqlite_webhook_rows.endpoint(retry_delays=SHORT)
    (delivery,) = sqlite_webhook_rows.emit()

    assert sqlite_webhook_rows.attempt(delivery, status(429, retry_after=retry_after)).retry_in == timedelta(
        seconds=expected
    )


def test_a_retry_after_may_be_a_date(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=SHORT)
    (delivery,) = webhook_rows.emit()
    at = datetime.now(UTC) + timedelta(seconds=200)

    outcome = webhook_rows.attempt(delivery, status(503, retry_after=format_datetime(at, usegmt=True)))

    assert outcome.retry_in is not None
    assert abs(outcome.retry_in - timedelta(seconds=200)) < timedelta(seconds=10)


def test_a_code_that_the_operator_calls_terminal_ends_the_delivery_at_once(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()

    outcome = webhook_rows.tuned(WEBHOOK_TERMINAL_CODES="422,400").attempt(delivery, status(422))

    assert (outcome.state, outcome.retry_in) == ("exhausted", None)


def test_410_ends_the_delivery_disables_the_endpoint_and_parks_the_others(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint()
    first, second, under_way = webhook_rows.emit_many(3)
    other = webhook_rows.claim(under_way)

    outcome = webhook_rows.attempt(first, status(410))

    lane = webhook_rows.lane(endpoint)
    assert outcome.state == "exhausted"
    assert (lane.enabled, lane.disabled_reason) == (False, "the receiver answered 410 Gone")
    assert [webhook_rows.delivery(row).state for row in (second, under_way)] == ["parked", "parked"]
    assert webhook_rows.record(other, status(200)).state == "delivered", "what was under way still counts"


def test_a_failure_that_was_under_way_when_its_endpoint_was_disabled_stays_parked(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    first, under_way = webhook_rows.emit_many(2)
    claim = webhook_rows.claim(under_way)
    webhook_rows.attempt(first, status(410))

    outcome = webhook_rows.record(claim, status(500))

    assert (outcome.state, outcome.retry_in) == ("parked", None)
    assert webhook_rows.delivery(under_way).next_attempt_at is None


def test_the_owner_is_told_of_a_disabled_endpoint_by_an_event(webhook_rows: WebhookRows) -> None:
    """Who subscribed to ``*`` is not bothered with the platform's own events."""
    broken = webhook_rows.endpoint(("market.*",))
    operators = webhook_rows.endpoint(("webhook.*",))
    webhook_rows.endpoint(("*",))
    deliveries = webhook_rows.emit()
    (delivery,) = [row for row in deliveries if webhook_rows.delivery(row).endpoint_id == broken]

    outcome = webhook_rows.attempt(delivery, status(410))

    (notice,) = webhook_rows.deliveries(ENDPOINT_DISABLED)
    assert notice.endpoint_id == operators
    assert str(broken).encode() in webhook_rows.body(notice.id)
    assert b"410 Gone" in webhook_rows.body(notice.id)
    assert outcome.released == (DueDelivery(notice.id, operators, lane=UNPROVEN),), "it is handed over with the attempt"


def test_so_many_exhausted_deliveries_in_a_row_disable_the_endpoint(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(retry_delays=(timedelta(seconds=1),))
    webhook_rows = webhook_rows.tuned(WEBHOOK_DISABLE_EXHAUSTED="3", WEBHOOK_BREAKER_FAILURES="100")
    rows = webhook_rows.emit_many(4)

    for row in rows[:2]:
        webhook_rows.attempt(row, status(500), status(500))
    assert webhook_rows.lane(endpoint).enabled
    webhook_rows.attempt(rows[2], status(500), status(500))

    assert webhook_rows.lane(endpoint).disabled_reason == "3 deliveries in a row used all their attempts"
    assert webhook_rows.delivery(rows[3]).state == "parked"


def test_an_endpoint_that_failed_for_too_long_is_disabled_with_its_next_failure(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.attempt(delivery, status(500))
    webhook_rows.change(Endpoint, endpoint, failing_since=utc_now() - timedelta(hours=121))

    outcome = webhook_rows.attempt(delivery, status(500))

    assert (outcome.state, outcome.retry_in) == ("parked", None)
    assert str(webhook_rows.lane(endpoint).disabled_reason).startswith("no success since ")


def test_one_success_clears_the_record_of_failures(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()

    webhook_rows.attempt(delivery, status(500), status(500), status(200))

    lane = webhook_rows.lane(endpoint)
    assert (lane.consecutive_failures, lane.consecutive_exhausted, lane.failing_since) == (0, 0, None)
    assert lane.last_success_at is not None


class TestManual:
    """An operator's attempt: exactly one, beside the schedule."""

    def test_its_failure_leaves_the_schedule_as_it_was(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint()
        (delivery,) = webhook_rows.emit()
        webhook_rows.attempt(delivery, status(500))
        before = webhook_rows.delivery(delivery)

        outcome = webhook_rows.record(by_hand(webhook_rows, delivery), status(500))

        after = webhook_rows.delivery(delivery)
        assert (outcome.state, outcome.retry_in) == ("retrying", None)
        assert (after.failures, after.next_attempt_at) == (before.failures, before.next_attempt_at)
        assert [(row.trigger, row.by) for row in webhook_rows.attempts(delivery)] == [
            ("schedule", None),
            ("manual", "ann"),
        ]

    def test_its_success_delivers_what_was_exhausted(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint(retry_delays=(timedelta(seconds=1),))
        (delivery,) = webhook_rows.emit()
        webhook_rows.attempt(delivery, status(500), status(500))

        assert webhook_rows.record(by_hand(webhook_rows, delivery), status(200)).state == "delivered"

    def test_its_failure_after_the_end_changes_nothing(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint()
        (delivery,) = webhook_rows.emit()
        webhook_rows.attempt(delivery, status(200))
        finished_at = webhook_rows.delivery(delivery).finished_at

        assert webhook_rows.record(by_hand(webhook_rows, delivery), status(500)).state == "delivered"
        assert webhook_rows.delivery(delivery).finished_at == finished_at

    def test_it_is_sent_to_a_disabled_endpoint_as_well(self, webhook_rows: WebhookRows) -> None:
        webhook_rows.endpoint()
        first, second = webhook_rows.emit_many(2)
        webhook_rows.attempt(first, status(410))
        assert webhook_rows.delivery(second).state == "parked"

        assert webhook_rows.record(by_hand(webhook_rows, second), status(200)).state == "delivered"


def by_hand(webhook_rows: WebhookRows, delivery: UUID) -> Claim:
    claim = webhook_rows.store.claim(delivery, manual_by="ann")
    assert isinstance(claim, Claim)
    return claim


def test_no_transition_leaves_a_lease_or_a_finished_row_with_an_attempt_to_come(webhook_rows: WebhookRows) -> None:
    """The table of all answers, walked to each delivery's end."""
    webhook_rows.endpoint(retry_delays=SHORT)
    webhook_rows = webhook_rows.tuned(
        WEBHOOK_TERMINAL_CODES="422", WEBHOOK_DISABLE_EXHAUSTED="100", WEBHOOK_BREAKER_FAILURES="1000"
    )
    answers = [*(status(code) for code in (100, 204, 302, 400, 404, 422, 429, 500, 503)), *map(no_answer, ErrorCode)]
    for answer in answers:
        (delivery,) = webhook_rows.emit()
        for _ in range(3):
            if webhook_rows.attempt(delivery, answer).state in {"delivered", "exhausted"}:
                break
        row = webhook_rows.delivery(delivery)
        assert row.state == ("delivered" if answer.is_success else "exhausted"), answer
        assert (row.lease_token, row.lease_until, row.next_attempt_at) == (None, None, None), answer
        assert row.finished_at is not None
        assert len(webhook_rows.attempts(delivery)) == row.attempts
    assert {row.state for row in webhook_rows.deliveries()} == {"delivered", "exhausted"}
    assert webhook_rows.count(Delivery) == len(answers)
