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
from tests.webhooks.stage import PAST, Stage, status

ONCE = (timedelta(seconds=1),)


def exhausted(stage: Stage, number: int, event_type: str = "market.resolved") -> list[UUID]:
    """Make exhausted deliveries for the one endpoint there is."""
    rows = [row for _ in range(number) for row in stage.emit(event_type)]
    for row in rows:
        stage.change(Delivery, row, state="exhausted", failures=2, next_attempt_at=None, finished_at=utc_now())
    return rows


def reopened(stage: Stage, wanted: FailedDeliveryFilter) -> list[UUID]:
    with stage.database.session() as session:
        return [due.delivery_id for batch in reopen_failed(session, wanted) for due in batch]


def test_all_that_failed_gets_fresh_attempts(stage: Stage) -> None:
    endpoint = stage.endpoint(retry_delays=ONCE)
    rows = exhausted(stage, 5)
    (delivered,) = stage.emit()
    stage.attempt(delivered, status(200))

    with stage.database.session() as session:
        assert count_failed(session, FailedDeliveryFilter(endpoint_id=endpoint)) == 5
    assert sorted(reopened(stage, FailedDeliveryFilter(endpoint_id=endpoint))) == sorted(rows)

    assert stage.attempt(rows[0], status(500)).state == "retrying", "its failures count from nought"
    assert stage.delivery(delivered).state == "delivered"


def test_the_filters_hold(stage: Stage) -> None:
    stage.endpoint()
    old, new, other = exhausted(stage, 1), exhausted(stage, 1), exhausted(stage, 1, "market.opened")
    stage.change(Delivery, old[0], created_at=utc_now() - PAST)
    half_an_hour_ago = utc_now() - PAST / 2

    assert reopened(stage, FailedDeliveryFilter(endpoint_id=uuid4())) == []
    assert reopened(stage, FailedDeliveryFilter(until=half_an_hour_ago)) == old
    assert reopened(stage, FailedDeliveryFilter(event_type="market.opened")) == other
    assert reopened(stage, FailedDeliveryFilter(since=half_an_hour_ago)) == new


def test_ten_operators_at_once_reopen_each_delivery_once(stage: Stage) -> None:
    stage.endpoint()
    rows = exhausted(stage, 40)
    start = Barrier(10)

    def one(_: int) -> list[UUID]:
        start.wait(20)
        return reopened(stage, FailedDeliveryFilter())

    with ThreadPoolExecutor(10) as pool:
        sent = [row for rows in pool.map(one, range(10)) for row in rows]

    assert sorted(sent) == sorted(rows)


def test_what_an_endpoint_missed_while_it_was_disabled_can_be_sent(stage: Stage) -> None:
    endpoint = stage.endpoint(("market.*",))
    (before,) = stage.emit()
    with stage.database.session() as session, session.begin():
        disable(session, find(session, endpoint), "by hand")
    assert stage.emit() == []
    assert stage.emit("other.thing") == []
    with stage.database.session() as session, pytest.raises(EndpointDisabledError):
        list(add_missing(session, endpoint, utc_now() - PAST))
    with stage.database.session() as session, session.begin():
        enable(session, find(session, endpoint), stage.settings)

    with stage.database.session() as session:
        missed = [due.delivery_id for batch in add_missing(session, endpoint, utc_now() - PAST) for due in batch]
        assert list(add_missing(session, endpoint, utc_now() - PAST)) == []

    assert len(missed) == 1
    assert stage.delivery(missed[0]).event_type == "market.resolved"
    assert missed != [before]


def test_missed_events_keep_their_id_and_bytes(stage: Stage) -> None:
    first = stage.endpoint()
    late = stage.endpoint()
    stage.change(Endpoint, late, enabled=False)
    (delivery,) = stage.emit(data={"n": 1})
    stage.change(Endpoint, late, enabled=True)

    with stage.database.session() as session:
        ((missed,),) = add_missing(session, late, utc_now() - PAST)

    one, two = stage.delivery(delivery), stage.delivery(missed.delivery_id)
    assert (one.endpoint_id, two.endpoint_id) == (first, late)
    assert (one.event_id, stage.body(one.id)) == (two.event_id, stage.body(two.id))


def test_unknown_ids_are_said_to_be_unknown(stage: Stage) -> None:
    with stage.database.session() as session:
        with pytest.raises(UnknownDeliveryIdError):
            find_delivery(session, uuid4())
        with pytest.raises(UnknownEndpointError):
            list(add_missing(session, uuid4(), utc_now()))
