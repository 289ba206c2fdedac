"""A delivery that was sent after all has no open dead letter, and a replay's row counts what it did."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import select

from taskyard.database.columns import utc_now
from taskyard.history.models import DeadLetter
from taskyard.history.operator_log import Operation, record_operation
from taskyard.webhooks.delivery.store import Claim
from taskyard.webhooks.operators.replay import BATCH, FailedDeliveryFilter, reopen_failed
from tests.webhooks.webhook_rows import WebhookRows, status

ONCE = (timedelta(seconds=1),)


def exhausted(webhook_rows: WebhookRows, run_id: str) -> UUID:
    """Make a delivery whose last attempt was made by this run."""
    (delivery,) = webhook_rows.emit()
    webhook_rows.attempt(delivery, status(500))
    webhook_rows.change(type(webhook_rows.delivery(delivery)), delivery, next_attempt_at=utc_now())
    assert webhook_rows.record(webhook_rows.claim(delivery), status(500), run_id).state == "exhausted"
    return delivery


def bury(webhook_rows: WebhookRows, run_id: str) -> None:
    """Store the dead letter, as its task does."""
    facts: dict[str, Any] = {"queue": "webhook-deliveries", "reason": "exhausted", "error_type": "E", "body": b""}
    with webhook_rows.database.session() as session, session.begin():
        session.add(
            DeadLetter(run_id=run_id, attempt=1, error_signature="s", error_message="m", failed_at=utc_now(), **facts)
        )


def dead_letters(webhook_rows: WebhookRows) -> list[tuple[str, str | None]]:
    with webhook_rows.database.session() as session:
        return [(row.state, row.resolution) for row in session.exec(select(DeadLetter))]


def send_by_hand(webhook_rows: WebhookRows, delivery: UUID) -> None:
    claim = webhook_rows.store.claim(delivery, manual_by="ann")
    assert isinstance(claim, Claim)
    assert webhook_rows.record(claim, status(200)).state == "delivered"


def test_a_delivery_that_succeeds_by_hand_resolves_its_dead_letter_with_that_reason(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=ONCE)
    delivery = exhausted(webhook_rows, "run-1")
    bury(webhook_rows, "run-1")

    send_by_hand(webhook_rows, delivery)

    assert dead_letters(webhook_rows) == [("discarded", "delivered at attempt 3 by ann")]


def test_a_dead_letter_that_is_stored_later_than_the_success_is_resolved_by_the_sweeper(
    webhook_rows: WebhookRows,
) -> None:
    webhook_rows.endpoint(retry_delays=ONCE)
    delivery = exhausted(webhook_rows, "run-1")
    send_by_hand(webhook_rows, delivery)
    assert webhook_rows.store.resolve_dead_letters() == 0
    bury(webhook_rows, "run-1")

    assert webhook_rows.store.resolve_dead_letters() == 1

    assert dead_letters(webhook_rows) == [("discarded", "the delivery succeeded meanwhile")]
    assert webhook_rows.store.resolve_dead_letters() == 0


def test_a_failure_by_hand_leaves_the_dead_letter_open(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=ONCE)
    delivery = exhausted(webhook_rows, "run-1")
    bury(webhook_rows, "run-1")
    claim = webhook_rows.store.claim(delivery, manual_by="ann")
    assert isinstance(claim, Claim)

    webhook_rows.record(claim, status(500))

    assert dead_letters(webhook_rows) == [("open", None)]


def test_a_replay_resolves_the_dead_letters_of_what_it_sends_again(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=ONCE)
    for run_id in ("run-1", "run-2"):
        exhausted(webhook_rows, run_id)
        bury(webhook_rows, run_id)

    with webhook_rows.database.session() as session:
        assert sum(len(batch) for batch in reopen_failed(session, FailedDeliveryFilter())) == 2

    assert dead_letters(webhook_rows) == [("discarded", "the delivery is sent again")] * 2


def test_the_row_of_a_replay_that_is_killed_has_the_count_of_what_was_done(
    webhook_rows: WebhookRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the process is left to write it at the end: each batch counts itself in its own transaction."""
    monkeypatch.setattr("taskyard.webhooks.operators.replay.BATCH", 2)
    webhook_rows.endpoint(retry_delays=ONCE)
    for number in range(5):
        exhausted(webhook_rows, f"run-{number}")
    with webhook_rows.database.session() as session, session.begin():
        operation = record_operation(session, "webhooks redeliver", count=0).id

    with webhook_rows.database.session() as session:
        batches = reopen_failed(session, FailedDeliveryFilter(), operation)
        next(batches)
        next(batches)
        del batches

    with webhook_rows.database.session() as session:
        row = session.get(Operation, operation)
        assert row is not None
        assert row.count == 4
    assert BATCH > 4
