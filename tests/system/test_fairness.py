"""A receiver that hangs must not be felt by those that do not."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from statistics import median, quantiles
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from taskyard.database.engine import open_session
from taskyard.webhooks.delivery.endpoints import disable, enable, find
from taskyard.webhooks.models import Delivery
from taskyard.webhooks.tasks import enqueue_deliveries
from tests.system.conftest import PlatformMaker
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Hostile, Receiver, never_answers

HEALTHY = 10
QUEUED = 1_000
SLOTS = 32
SLOW_SLOTS = 6  # a fifth of them
ROUNDS = 7  # of each kind
EVENTS = 40  # in a round, each for all healthy endpoints
PACE = 0.1  # seconds between events: a third of what two cores carry, so that no queue of its own blurs the view


def test_healthy_endpoints_get_all_while_a_thousand_deliveries_hang(make_postgres_platform: PlatformMaker) -> None:
    """The hanging endpoint holds the slots of the slow lane and no more; what that costs in time, see below."""
    platform = make_postgres_platform(WEBHOOK_TOTAL_TIMEOUT="15", WEBHOOK_DISABLE_AFTER="100000")
    with Hostile(never_answers) as hanging, Receiver() as healthy:
        platform.webhook_rows.endpoint(("market.*",), healthy.url)
        platform.webhook_rows.endpoint(("hang",), hanging.url)
        platform.worker(slots=SLOTS)
        platform.emit_together(QUEUED, "hang")
        wait_for(lambda: hanging.connections >= SLOW_SLOTS, LIMIT, "the slow lane is full")

        platform.emit_together(100)
        healthy.wait_for(100, LIMIT)

        wait_for(lambda: platform.states()["delivered"] == 100, LIMIT, "all are recorded")
        states = platform.states()
        assert states.get("pending", 0) + states.get("retrying", 0) >= QUEUED
        with platform.database.session() as session:
            leased = session.scalar(select(func.count()).where(col(Delivery.lease_until).is_not(None)))
        assert leased == SLOW_SLOTS


@pytest.mark.chaos
def test_a_hanging_endpoint_with_a_thousand_deliveries_does_not_slow_ten_healthy_ones(
    make_postgres_platform: PlatformMaker,
) -> None:
    """
    Rounds without and with the hanging endpoint's thousand take turns, in one run on the same processes.

    The latency of a delivery is from `emit` (the envelope's timestamp) to its arrival; a round gives one p95 over 400
    deliveries to ten endpoints, and the medians of the rounds are compared. It needs a quiet machine.
    """
    platform = make_postgres_platform(WEBHOOK_TOTAL_TIMEOUT="15", WEBHOOK_DISABLE_AFTER="100000")
    quiet, troubled = measured(platform, ROUNDS)

    assert median(troubled) <= 1.2 * median(quiet), f"p95 without {quiet}, with {troubled} seconds"


def measured(platform: WebhookPlatform, rounds: int) -> tuple[list[float], list[float]]:
    """Take turns; return the p95 of each round without and with the hanging endpoint, in seconds."""
    quiet: list[float] = []
    troubled: list[float] = []
    with ExitStack() as stack:
        hanging = stack.enter_context(Hostile(never_answers))
        receivers = [stack.enter_context(Receiver()) for _ in range(HEALTHY)]
        for receiver in receivers:
            platform.webhook_rows.endpoint(("market.*",), receiver.url)
        hang = platform.webhook_rows.endpoint(("hang",), hanging.url)
        platform.worker(slots=SLOTS)
        p95_of_a_round(platform, receivers)  # warms up
        platform.emit_together(QUEUED, "hang")
        wait_for(lambda: hanging.connections >= SLOW_SLOTS, LIMIT, "the slow lane is full")
        switch(platform, hang, on=False)
        for _ in range(rounds):
            quiet.append(p95_of_a_round(platform, receivers))
            with troubled_by(platform, hang):
                troubled.append(p95_of_a_round(platform, receivers))
    return quiet, troubled


@contextmanager
def troubled_by(platform: WebhookPlatform, hang: UUID) -> Iterator[None]:
    """The thousand are handed over at once, and taken back at the end."""
    switch(platform, hang, on=True)
    assert platform.states().get("parked", 0) == 0
    yield
    states = platform.states()
    assert states.get("pending", 0) + states.get("retrying", 0) >= QUEUED - 100, "they were there all the time"
    switch(platform, hang, on=False)


def switch(platform: WebhookPlatform, endpoint: UUID, *, on: bool) -> None:
    with open_session() as session, session.begin():
        row = find(session, endpoint)
        if on:
            _, released = enable(session, row, platform.webhook_rows.settings)
        else:
            released = []
            disable(session, row, "between two rounds")
    enqueue_deliveries(released)
    assert platform.webhook_rows.lane(endpoint).enabled is on


def p95_of_a_round(platform: WebhookPlatform, receivers: list[Receiver]) -> float:
    for receiver in receivers:
        receiver.clear()
    pacer = Event()
    for _ in range(EVENTS):
        platform.emit(event_type="market.resolved")
        pacer.wait(PACE)
    arrived = [request for receiver in receivers for request in receiver.wait_for(EVENTS, LIMIT)]
    latencies = [(request.received_at - emitted_at(request.body)).total_seconds() for request in arrived]
    return quantiles(latencies, n=20)[-1]


def emitted_at(body: bytes) -> datetime:
    return datetime.fromisoformat(body.split(b'"timestamp":"', 1)[1].split(b'"', 1)[0].decode())
