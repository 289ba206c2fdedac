"""The circuit breaker: it opens, probes, and closes or opens for longer."""

from datetime import timedelta
from uuid import UUID

import pytest

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.limits import LONGEST_BREAK
from taskyard.webhooks.delivery.store import Refusal
from tests.databases import Database
from tests.webhooks.webhook_rows import WebhookRows, status

GRACE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def ids(released: tuple[DueDelivery, ...] | list[DueDelivery]) -> list[object]:
    return [due.delivery_id for due in released]


def pause_of(webhook_rows: WebhookRows, endpoint: UUID) -> int:
    """The pause that began with the last attempt, in seconds."""
    lane = webhook_rows.lane(endpoint)
    assert lane.paused_until is not None
    return round((lane.paused_until - lane.updated_at).total_seconds())


class TestBreaker:
    """It opens after so many failures in a row, lets one probe through, and closes with its success."""

    @pytest.fixture
    def webhook_rows(self, database: Database) -> WebhookRows:
        return WebhookRows(database, WEBHOOK_BREAKER_FAILURES="3", WEBHOOK_BREAKER_OPEN="30")

    def test_it_opens_and_nobody_gets_in(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        rows = webhook_rows.emit_many(4)

        for row in rows[:3]:
            assert webhook_rows.lane(endpoint).paused_until is None
            webhook_rows.attempt(row, status(500))

        assert pause_of(webhook_rows, endpoint) == 30
        assert webhook_rows.refusal(rows[3]) == Refusal("waiting")

    def test_half_open_it_lets_one_probe_through(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        rows = webhook_rows.emit_many(6)
        for row in rows[:3]:
            webhook_rows.attempt(row, status(500))
        webhook_rows.end_pause(endpoint)

        probe = webhook_rows.claim(rows[3])

        assert webhook_rows.refusal(rows[4]) == webhook_rows.refusal(rows[5]) == Refusal("waiting")
        assert ids(webhook_rows.record(probe, status(200)).released) == rows[4:], "closed: all that waited are released"
        assert webhook_rows.lane(endpoint).breaker_openings == 0

    def test_each_probe_that_fails_doubles_the_pause_up_to_half_an_hour(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        rows = webhook_rows.emit_many(14)
        for row in rows[:3]:
            webhook_rows.attempt(row, status(500))

        pauses = []
        for row in rows[3:12]:
            webhook_rows.end_pause(endpoint)
            webhook_rows.attempt(row, status(500))
            pauses.append(pause_of(webhook_rows, endpoint))

        assert [*pauses] == [60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]
        assert timedelta(seconds=1800) == LONGEST_BREAK

    def test_failures_that_were_under_way_when_it_opened_do_not_prolong_it(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        claims = [webhook_rows.claim(row) for row in webhook_rows.emit_many(9)]

        for claim in claims:
            webhook_rows.record(claim, status(500))

        until = webhook_rows.lane(endpoint).paused_until
        assert until is not None
        assert until - utc_now() <= timedelta(seconds=30)
        assert webhook_rows.lane(endpoint).breaker_openings == 1

    def test_a_success_in_between_starts_the_count_again(self, webhook_rows: WebhookRows) -> None:
        endpoint = webhook_rows.endpoint()
        rows = webhook_rows.emit_many(5)

        for row, code in zip(rows, (500, 500, 200, 500, 500), strict=True):
            webhook_rows.attempt(row, status(code))

        assert webhook_rows.lane(endpoint).paused_until is None
