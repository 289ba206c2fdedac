"""An endpoint's limits: slots, rate limit, pauses and the circuit breaker, and which deliveries are released."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from taskyard.database.columns import utc_now
from taskyard.settings.loading import load_settings
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.endpoints import disable, enable, find
from taskyard.webhooks.delivery.limits import LEAD, EndpointLimiter, LimitWait
from taskyard.webhooks.delivery.store import Claim, Refusal
from taskyard.webhooks.models import Delivery, Endpoint
from tests.webhooks.webhook_rows import ENVIRONMENT, WebhookRows, status

GRACE = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def ids(released: tuple[DueDelivery, ...] | list[DueDelivery]) -> list[object]:
    return [due.delivery_id for due in released]


def test_a_full_lane_lets_nobody_in_and_calls_the_oldest_when_a_place_is_free(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=1)
    first, second, third = webhook_rows.emit_many(3)
    claim = webhook_rows.claim(first)

    assert webhook_rows.refusal(third) == webhook_rows.refusal(second) == Refusal("waiting")
    outcome = webhook_rows.record(claim, status(200))

    assert outcome.released == (DueDelivery(second, claim.endpoint.id, has_task=False),)
    assert isinstance(webhook_rows.store.claim(second), Claim)


def test_a_failure_frees_its_place_too(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=1)
    first, second = webhook_rows.emit_many(2)
    claim = webhook_rows.claim(first)
    webhook_rows.refusal(second)

    assert ids(webhook_rows.record(claim, status(500)).released) == [second]


def test_a_called_delivery_is_called_once(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=2)
    rows = webhook_rows.emit_many(4)
    one, two = webhook_rows.claim(rows[0]), webhook_rows.claim(rows[1])
    for row in rows[2:]:
        webhook_rows.refusal(row)

    released = [*webhook_rows.record(one, status(200)).released, *webhook_rows.record(two, status(200)).released]

    assert ids(released) == rows[2:]
    assert webhook_rows.store.waiting(100) == []


def test_the_places_of_a_lane_hold_under_parallel_claims(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=3)
    rows = webhook_rows.emit_many(20)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(webhook_rows.store.claim, rows))

    assert [type(result) for result in results].count(Claim) == 3
    assert {result.state for result in results if isinstance(result, Refusal)} == {"waiting"}


def test_a_lost_worker_keeps_its_place_only_as_long_as_its_lease(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=1)
    first, second = webhook_rows.emit_many(2)
    webhook_rows.claim(first)
    assert webhook_rows.refusal(second) == Refusal("waiting")

    webhook_rows.lose_worker(first)

    assert isinstance(webhook_rows.store.claim(second), Claim)


def test_one_full_lane_does_not_touch_another(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(("a",), max_concurrency=1)
    webhook_rows.endpoint(("b",), max_concurrency=1)
    (first,), (second,) = webhook_rows.emit("a"), webhook_rows.emit("b")
    webhook_rows.claim(first)

    assert isinstance(webhook_rows.store.claim(second), Claim)


def test_under_a_rate_limit_deliveries_are_asked_to_come_an_interval_apart_and_only_few_ahead() -> None:
    """At 4 a second: one at once, four within the second ahead, and the rest waits in SQL to be released."""
    now = utc_now()
    limiter = EndpointLimiter(Endpoint(url="", rate_per_second=4.0), 0, load_settings(ENVIRONMENT))

    answers = [limiter.admit(Delivery(event_id="", endpoint_id=uuid4(), event_type=""), now) for _ in range(8)]

    ahead = [LimitWait(now + LEAD + timedelta(seconds=seconds)) for seconds in (0.25, 0.5, 0.75, 1.0)]
    assert answers == [now + LEAD, *ahead, *[LimitWait(None)] * 3]


def test_starts_lie_an_interval_apart_however_late_the_deliveries_come() -> None:
    """Twenty that were asked to come within a second, and come all at its end, start no faster for it."""
    now = utc_now()
    limiter = EndpointLimiter(Endpoint(url="", rate_per_second=20.0), 0, load_settings(ENVIRONMENT))
    reserved = Delivery(event_id="", endpoint_id=uuid4(), event_type="", slot_reserved=True)
    limiter.admit(reserved, now)
    late = now + SECOND

    starts = [limiter.admit(reserved, late) for _ in range(20)]

    assert starts[:2] == [late + LEAD, late + LEAD + timedelta(milliseconds=50)]
    assert all(isinstance(start, LimitWait) for start in starts[2:])


def test_a_delivery_that_was_not_asked_waits_behind_those_that_were(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(rate_per_second=4.0)
    first, asked, newcomer = webhook_rows.emit_many(3)
    webhook_rows.claim(first)
    assert webhook_rows.refusal(asked).state == "busy"

    refusal = webhook_rows.refusal(newcomer)

    assert refusal.retry_at is not None
    assert refusal.retry_at > webhook_rows.delivery(asked).next_attempt_at  # type: ignore[operator]  # it has one


def test_an_asked_delivery_starts_when_its_time_has_come(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(rate_per_second=0.05)
    first, second = webhook_rows.emit_many(2)
    webhook_rows.claim(first)
    assert webhook_rows.refusal(second).state == "busy"
    webhook_rows.change(Delivery, second, next_attempt_at=utc_now())
    webhook_rows.change(Endpoint, endpoint, next_start_at=utc_now())

    assert isinstance(webhook_rows.store.claim(second), Claim)


def test_who_finishes_under_a_rate_limit_calls_the_next_to_its_slot(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(rate_per_second=0.2)
    first, second, third = webhook_rows.emit_many(3)
    claim = webhook_rows.claim(first)
    assert webhook_rows.refusal(second).state == "busy", "one slot is always given ahead"
    assert webhook_rows.refusal(third) == Refusal("waiting")

    assert webhook_rows.record(claim, status(200)).released == ()
    webhook_rows.change(Delivery, second, next_attempt_at=utc_now())
    webhook_rows.change(Endpoint, endpoint, next_start_at=utc_now(), next_slot_at=utc_now())
    (released,) = webhook_rows.record(webhook_rows.claim(second), status(200)).released

    assert released.delivery_id == third
    assert 4 * SECOND < released.wait <= 5 * SECOND + LEAD
    assert webhook_rows.refusal(third).retry_at is not None, "its slot"


def test_an_outage_of_the_workers_is_not_followed_by_a_burst(webhook_rows: WebhookRows) -> None:
    """After an hour without workers, what waited still starts one interval apart."""
    webhook_rows.endpoint(rate_per_second=0.05, max_concurrency=1000)
    rows = webhook_rows.emit_many(20)
    for row in rows:
        webhook_rows.store.claim(row)
    for row in rows:
        webhook_rows.change(
            Delivery, row, next_attempt_at=utc_now() - timedelta(hours=1), lease_until=None, lease_token=None
        )

    started = [row for row in rows if isinstance(webhook_rows.store.claim(row), Claim)]

    assert len(started) <= 2, "those whose slot was given before the outage"


@pytest.mark.parametrize(("asked", "seconds"), [("120", 120), ("999999999", 86_400)])
def test_a_receiver_that_asks_for_a_pause_gets_it_for_its_whole_lane(
    webhook_rows: WebhookRows, asked: str, seconds: int
) -> None:
    endpoint = webhook_rows.endpoint()
    first, second = webhook_rows.emit_many(2)

    outcome = webhook_rows.attempt(first, status(429, retry_after=asked))

    until = webhook_rows.lane(endpoint).paused_until
    assert until is not None
    assert abs(until - utc_now() - timedelta(seconds=seconds)) < 5 * SECOND
    assert outcome.retry_in == timedelta(seconds=seconds)
    assert webhook_rows.refusal(second) == Refusal("waiting")
    assert outcome.released == ()
    assert webhook_rows.store.waiting(100) == [], "the sweeper leaves a paused lane alone"
    webhook_rows.end_pause(endpoint)
    assert ids(webhook_rows.store.waiting(100)) == [second]


@pytest.mark.parametrize("garbage", ["soon", "-5", "0", "1e9", "", "Wed, 01 Jan 2020 00:00:00 GMT", "\u0663"])
def test_a_retry_after_that_says_nothing_pauses_nothing(sqlite_webhook_rows: WebhookRows, garbage: str) -> None:
    endpoint = sqlite_webhook_rows.endpoint()
    (delivery,) = sqlite_webhook_rows.emit()

    outcome = sqlite_webhook_rows.attempt(delivery, status(503, retry_after=garbage))

    assert sqlite_webhook_rows.lane(endpoint).paused_until is None
    assert outcome.retry_in == timedelta(seconds=60), "the floor after a 503"


def test_a_success_that_was_under_way_does_not_end_a_pause_that_another_answer_asked_for(
    webhook_rows: WebhookRows,
) -> None:
    endpoint = webhook_rows.endpoint()
    asked, under_way = (webhook_rows.claim(row) for row in webhook_rows.emit_many(2))
    webhook_rows.record(asked, status(429, retry_after="600"))
    until = webhook_rows.lane(endpoint).paused_until

    webhook_rows.record(under_way, status(200))

    assert webhook_rows.lane(endpoint).paused_until == until


def test_a_manual_success_ends_the_pause(webhook_rows: WebhookRows) -> None:
    """The operator has mended the receiver and shows it; nobody shall wait for half an hour now."""
    endpoint = webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.attempt(delivery, status(503, retry_after="600"))
    claim = webhook_rows.store.claim(delivery, manual_by="ann")
    assert isinstance(claim, Claim)

    webhook_rows.record(claim, status(200))

    assert webhook_rows.lane(endpoint).paused_until is None


def test_a_disabled_endpoint_parks_and_an_enabled_one_releases_within_its_lane(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(max_concurrency=2)
    rows = webhook_rows.emit_many(5)
    with webhook_rows.database.session() as session, session.begin():
        assert disable(session, find(session, endpoint), "by hand") == 5
    assert webhook_rows.refusal(rows[0]) == Refusal("parked")
    assert webhook_rows.store.waiting(100) == []

    with webhook_rows.database.session() as session, session.begin():
        count, released = enable(session, find(session, endpoint), webhook_rows.settings)

    assert count == 5
    assert [due.delivery_id in rows for due in released] == [True, True]
    first = {due.delivery_id for due in released}
    for row in first:
        assert isinstance(webhook_rows.store.claim(row), Claim)
    for row in set(rows) - first:
        assert webhook_rows.store.claim(row) == Refusal("waiting")


def pause_of(webhook_rows: WebhookRows, endpoint: UUID) -> int:
    """The pause that began with the last attempt, in seconds."""
    lane = webhook_rows.lane(endpoint)
    assert lane.paused_until is not None
    return round((lane.paused_until - lane.updated_at).total_seconds())
