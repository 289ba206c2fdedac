"""Old webhook rows go, in batches and with true counts; what is open, parked or unresolved stays."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from taskyard.database.columns import utc_now
from taskyard.history.models import DeadLetter
from taskyard.webhooks.models import Delivery, DeliveryAttempt, Event
from taskyard.webhooks.retention import RemovedWebhooks, clean_up
from tests.webhooks.webhook_rows import WebhookRows, status

OLD = timedelta(days=31)
DAYS = {
    "webhook_event_retention_days": 0,
    "webhook_delivery_retention_days": 0,
    "webhook_attempt_retention_days": 0,
    "webhook_excerpt_retention_days": 0,
}


def delivered(webhook_rows: WebhookRows, number: int) -> list[UUID]:
    """Make delivered deliveries, each of an event of its own."""
    rows = webhook_rows.emit_many(number)
    for row in rows:
        webhook_rows.attempt(row, status(200))
    return rows


def age(webhook_rows: WebhookRows, delivery: UUID, by: timedelta) -> None:
    """Let a delivery, its event and its attempts be so old."""
    moment = utc_now() - by
    webhook_rows.change(Event, webhook_rows.delivery(delivery).event_id, created_at=moment)
    webhook_rows.change(Delivery, delivery, created_at=moment, finished_at=moment)
    with webhook_rows.database.session() as session, session.begin():
        for attempt in session.scalars(select(DeliveryAttempt).filter_by(delivery_id=delivery)):
            attempt.started_at, attempt.excerpt = moment, "said the receiver"


def test_after_thirty_days_events_deliveries_and_attempts_are_gone_and_the_rest_stays(
    webhook_rows: WebhookRows,
) -> None:
    webhook_rows.endpoint()
    old, young = delivered(webhook_rows, 5), delivered(webhook_rows, 2)
    for row in old:
        age(webhook_rows, row, OLD)

    removed = clean_up(webhook_rows.database.session, webhook_rows.settings, utc_now(), batch=2)

    assert removed == RemovedWebhooks(deliveries=5, events=5, attempts=5, excerpts=5)
    assert {row.id for row in webhook_rows.deliveries()} == set(young)
    assert (webhook_rows.count(Event), webhook_rows.count(DeliveryAttempt)) == (2, 2)
    assert clean_up(webhook_rows.database.session, webhook_rows.settings, utc_now()) == RemovedWebhooks()


def test_an_excerpt_is_gone_after_a_week_and_its_attempt_is_not(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (row,) = delivered(webhook_rows, 1)
    age(webhook_rows, row, timedelta(days=8))

    assert clean_up(webhook_rows.database.session, webhook_rows.settings, utc_now()) == RemovedWebhooks(excerpts=1)

    (attempt,) = webhook_rows.attempts(row)
    assert (attempt.excerpt, attempt.status) == (None, 200)


@pytest.mark.parametrize("changes", [{"state": "retrying"}, {"state": "pending"}, {"state": "parked"}])
def test_what_is_not_finished_stays_whatever_its_age(webhook_rows: WebhookRows, changes: dict[str, Any]) -> None:
    webhook_rows.endpoint()
    (row,) = delivered(webhook_rows, 1)
    age(webhook_rows, row, OLD)
    webhook_rows.change(Delivery, row, **changes)

    removed = clean_up(webhook_rows.database.session, webhook_rows.settings, utc_now())

    assert (removed.deliveries, removed.events) == (0, 0)


def test_a_delivery_with_an_open_dead_letter_stays_so_that_it_can_be_redriven(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (row,) = delivered(webhook_rows, 1)
    age(webhook_rows, row, OLD)
    webhook_rows.change(Delivery, row, state="exhausted", exhausted_run_id="run-1")
    facts: dict[str, Any] = {"queue": "q", "reason": "exhausted", "error_type": "E", "error_message": "", "body": b""}
    with webhook_rows.database.session() as session, session.begin():
        session.add(DeadLetter(run_id="run-1", attempt=1, error_signature="s", failed_at=utc_now(), **facts))

    assert clean_up(webhook_rows.database.session, webhook_rows.settings, utc_now()).deliveries == 0


def test_zero_days_keep_all(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (row,) = delivered(webhook_rows, 1)
    age(webhook_rows, row, timedelta(days=3000))
    settings = webhook_rows.settings.model_copy(update=DAYS)

    assert clean_up(webhook_rows.database.session, settings, utc_now()) == RemovedWebhooks()
