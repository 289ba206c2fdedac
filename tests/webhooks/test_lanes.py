"""The lanes of deliveries: what holds slots for long, what only fails, and what nobody knows yet."""

from dataclasses import replace
from datetime import timedelta

import pytest

from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.lanes import FAILING, HEALTHY, SLOW, UNPROVEN, Lane
from taskyard.webhooks.delivery.store import Refusal
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.http.response import Answer, ErrorCode, Phases
from taskyard.webhooks.models import SLOW_AFTER, Endpoint
from tests.webhooks.webhook_rows import WebhookRows, no_answer, status


def late(answer: Answer) -> Answer:
    return replace(answer, phases=Phases(total_ms=1001.0))


@pytest.mark.parametrize(
    ("answers", "lane"),
    [
        ([], UNPROVEN),
        ([status(200)], HEALTHY),
        ([status(500)], HEALTHY),
        ([status(500), no_answer()], FAILING),
        ([late(status(200))], SLOW),
        ([late(no_answer(ErrorCode.TIMEOUT_CONNECT))], SLOW),
        ([status(500), late(status(500)), late(status(500))], UNPROVEN),
        ([status(200), late(status(200))], HEALTHY),
        ([late(status(200)), late(status(200)), status(500)], HEALTHY),
    ],
)
def test_time_decides_on_the_queue_and_failures_on_the_place_in_it(
    webhook_rows: WebhookRows, answers: list[Answer], lane: Lane
) -> None:
    webhook_rows.endpoint()
    for answer in answers:
        (delivery,) = webhook_rows.emit()
        webhook_rows.attempt(delivery, answer)

    with webhook_rows.database.session() as session, session.begin():
        (at_once,) = add_event(session, webhook_rows.settings, "market.resolved", {}).due
    swept = webhook_rows.store.lost(100, timedelta(hours=-1))

    assert {due.lane for due in (at_once, *swept)} == {lane}
    assert at_once.delivery_id in {due.delivery_id for due in swept}


def test_a_delivery_outside_the_slow_lane_moves_there_when_its_endpoint_became_slow(webhook_rows: WebhookRows) -> None:
    endpoint = webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.change(Endpoint, endpoint, slow_attempts=SLOW_AFTER + 1)

    refusal = webhook_rows.store.claim(delivery, is_slow_lane=False)

    assert refusal == Refusal("slow", moved=DueDelivery(delivery, endpoint, lane=SLOW, has_task=False))
