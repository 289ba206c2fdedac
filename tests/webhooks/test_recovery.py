"""Sending again on an operator's word: what failed, what was missed, each once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import UUID, uuid4

import pytest

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.endpoints import UnknownEndpointError, disable, enable, find
from taskyard.webhooks.models import Delivery, Endpoint
from taskyard.webhooks.operators.replay import (
    EndpointDisabledError,
    FailedDeliveryFilter,
    UnknownDeliveryIdError,
    add_missing,
    count_failed,
    find_delivery,
    reopen_failed,
)
from tests.webhooks.webhook_rows import PAST, WebhookRows, status

ONCE = (timedelta(seconds=1),)


def exhausted(webhook_rows: WebhookRows, number: int, event_type: str = "market.resolved") -> list[UUID]:
    """Make exhausted deliveries for the one endpoint there is."""
    rows = [row for _ in range(number) for row in webhook_rows.emit(event_type)]
    for row in rows:
        webhook_rows.change(Delivery, row, state="exhausted", failures=2, next_attempt_at=None, finished_at=utc_now())
    return rows


def reopened(webhook_rows: WebhookRows, wanted: FailedDeliveryFilter) -> list[UUID]:
    with webhook_rows.database.session() as session:
        return [due.delivery_id for batch in reopen_failed(session, wanted) for due in batch]


def test_all_that_failed_gets_fresh_attempts(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(retry_delays=ONCE)
    rows = exhausted(webhook_rows, 5)
    (delivered,) = webhook_rows.emit()
    webhook_rows.attempt(delivered, status(200))

    with webhook_rows.database.session() as session:
        assert count_failed(session, FailedDeliveryFilter(endpoint_id=endpoint)) == 5
    assert sorted(reopened(webhook_rows, FailedDeliveryFilter(endpoint_id=endpoint))) == sorted(rows)

    assert webhook_rows.attempt(rows[0], status(500)).state == "retrying", "its failures count from nought"
    assert webhook_rows.delivery(delivered).state == "delivered"


def test_the_filters_hold(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    old, new, other = (
        exhausted(webhook_rows, 1),
        exhausted(webhook_rows, 1),
        exhausted(webhook_rows, 1, "market.opened"),
    )
    webhook_rows.change(Delivery, old[0], created_at=utc_now() - PAST)
    half_an_hour_ago = utc_now() - PAST / 2

    assert reopened(webhook_rows, FailedDeliveryFilter(endpoint_id=uuid4())) == []
    assert reopened(webhook_rows, FailedDeliveryFilter(until=half_an_hour_ago)) == old
    assert reopened(webhook_rows, FailedDeliveryFilter(event_type="market.opened")) == other
    assert reopened(webhook_rows, FailedDeliveryFilter(since=half_an_hour_ago)) == new


def test_ten_operators_at_once_reopen_each_delivery_once(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    rows = exhausted(webhook_rows, 40)
    start = Barrier(10)

    def one(_: int) -> list[UUID]:
        start.wait(20)
        return reopened(webhook_rows, FailedDeliveryFilter())

    with ThreadPoolExecutor(10) as pool:
        sent = [row for rows in pool.map(one, range(10)) for row in rows]

    assert sorted(sent) == sorted(rows)


def test_what_an_endpoint_missed_while_it_was_disabled_can_be_sent(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint(("market.*",))
    (before,) = webhook_rows.emit()
    with webhook_rows.database.session() as session, session.begin():
        disable(session, find(session, endpoint), "by hand")
    assert webhook_rows.emit() == []
    assert webhook_rows.emit("other.thing") == []
    with webhook_rows.database.session() as session, pytest.raises(EndpointDisabledError):
        list(add_missing(session, endpoint, utc_now() - PAST))
    with webhook_rows.database.session() as session, session.begin():
        enable(session, find(session, endpoint), webhook_rows.settings)

    with webhook_rows.database.session() as session:
        missed = [due.delivery_id for batch in add_missing(session, endpoint, utc_now() - PAST) for due in batch]
        assert list(add_missing(session, endpoint, utc_now() - PAST)) == []

    assert len(missed) == 1
    assert webhook_rows.delivery(missed[0]).event_type == "market.resolved"
    assert missed != [before]


def test_missed_events_keep_their_id_and_bytes(webhook_rows: WebhookRows) -> None:
    first = webhook_rows.endpoint()
    late = webhook_rows.endpoint()
    webhook_rows.change(Endpoint, late, enabled=False)
    (delivery,) = webhook_rows.emit(data={"n": 1})
    webhook_rows.change(Endpoint, late, enabled=True)

    with webhook_rows.database.session() as session:
        ((missed,),) = add_missing(session, late, utc_now() - PAST)

    one, two = webhook_rows.delivery(delivery), webhook_rows.delivery(missed.delivery_id)
    assert (one.endpoint_id, two.endpoint_id) == (first, late)
    assert (one.event_id, webhook_rows.body(one.id)) == (two.event_id, webhook_rows.body(two.id))


def test_unknown_ids_are_said_to_be_unknown(webhook_rows: WebhookRows) -> None:
    with webhook_rows.database.session() as session:
        with pytest.raises(UnknownDeliveryIdError):
            find_delivery(session, uuid4())
        with pytest.raises(UnknownEndpointError):
            list(add_missing(session, uuid4(), utc_now()))
