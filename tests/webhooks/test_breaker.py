"""The circuit breaker: it opens, probes, and closes or opens for longer."""

from datetime import timedelta
from uuid import UUID

import pytest

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.limits import LONGEST_BREAK
from taskyard.webhooks.delivery.store import Refusal
from tests.databases import Database
from tests.webhooks.stage import Stage, status

GRACE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def ids(released: tuple[DueDelivery, ...] | list[DueDelivery]) -> list[object]:
    return [due.delivery_id for due in released]


def pause_of(stage: Stage, endpoint: UUID) -> int:
    """The pause that began with the last attempt, in seconds."""
    lane = stage.lane(endpoint)
    assert lane.paused_until is not None
    return round((lane.paused_until - lane.updated_at).total_seconds())


class TestBreaker:
    """It opens after so many failures in a row, lets one probe through, and closes with its success."""

    @pytest.fixture
    def stage(self, database: Database) -> Stage:
        return Stage(database, WEBHOOK_BREAKER_FAILURES="3", WEBHOOK_BREAKER_OPEN="30")

    def test_it_opens_and_nobody_gets_in(self, stage: Stage) -> None:
        endpoint = stage.endpoint()
        rows = stage.emit_many(4)

        for row in rows[:3]:
            assert stage.lane(endpoint).paused_until is None
            stage.attempt(row, status(500))

        assert pause_of(stage, endpoint) == 30
        assert stage.refusal(rows[3]) == Refusal("waiting")

    def test_half_open_it_lets_one_probe_through(self, stage: Stage) -> None:
        endpoint = stage.endpoint()
        rows = stage.emit_many(6)
        for row in rows[:3]:
            stage.attempt(row, status(500))
        stage.end_pause(endpoint)

        probe = stage.claim(rows[3])

        assert stage.refusal(rows[4]) == stage.refusal(rows[5]) == Refusal("waiting")
        assert ids(stage.record(probe, status(200)).released) == rows[4:], "closed: all that waited are released"
        assert stage.lane(endpoint).breaker_openings == 0

    def test_each_probe_that_fails_doubles_the_pause_up_to_half_an_hour(self, stage: Stage) -> None:
        endpoint = stage.endpoint()
        rows = stage.emit_many(14)
        for row in rows[:3]:
            stage.attempt(row, status(500))

        pauses = []
        for row in rows[3:12]:
            stage.end_pause(endpoint)
            stage.attempt(row, status(500))
            pauses.append(pause_of(stage, endpoint))

        assert [*pauses] == [60, 120, 240, 480, 960, 1800, 1800, 1800, 1800]
        assert timedelta(seconds=1800) == LONGEST_BREAK

    def test_failures_that_were_under_way_when_it_opened_do_not_prolong_it(self, stage: Stage) -> None:
        endpoint = stage.endpoint()
        claims = [stage.claim(row) for row in stage.emit_many(9)]

        for claim in claims:
            stage.record(claim, status(500))

        until = stage.lane(endpoint).paused_until
        assert until is not None
        assert until - utc_now() <= timedelta(seconds=30)
        assert stage.lane(endpoint).breaker_openings == 1

    def test_a_success_in_between_starts_the_count_again(self, stage: Stage) -> None:
        endpoint = stage.endpoint()
        rows = stage.emit_many(5)

        for row, code in zip(rows, (500, 500, 200, 500, 500), strict=True):
            stage.attempt(row, status(code))

        assert stage.lane(endpoint).paused_until is None
