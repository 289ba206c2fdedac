"""Bad endpoints take a few slots of those that exist, and leave the others to healthy ones and to other queues."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from statistics import quantiles
from threading import Event
from time import monotonic
from typing import Any

import pytest
import redis
from sqlalchemy import func, select
from sqlmodel import col

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.database.columns import utc_now
from taskyard.settings.queues import SLOW_WEBHOOKS, WEBHOOKS
from taskyard.webhooks.models import SLOW_AFTER, Delivery, Endpoint
from taskyard.webhooks.tasks import sweep
from tests.system.conftest import PlatformMaker
from tests.system.test_fairness import emitted_at
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Hostile, Receiver, Reply, never_answers

SLOTS, WORKERS = 5, 2  # what `up` starts on two cores
SLOW_SLOTS = 2
HEALTHY = 20
DEFAULTS = {  # of the settings that the tests' platform shortens
    "WEBHOOK_RETRY_DELAYS": "30,300,3600,21600,86400",
    "WEBHOOK_THROTTLE_FLOOR": "60",
    "WEBHOOK_TOTAL_TIMEOUT": "15",
    "WEBHOOK_CONNECT_TIMEOUT": "5",
    "WEBHOOK_SWEEP_INTERVAL": "30",
    "WEBHOOK_BREAKER_FAILURES": "10",
    "WEBHOOK_DISABLE_EXHAUSTED": "5",
}
EVENTS = 30  # in a round, each for all healthy endpoints
PACE = 0.3  # seconds between events


def test_slow_endpoints_share_two_slots_and_the_healthy_get_all(make_postgres_platform: PlatformMaker) -> None:
    """A hundred endpoints of five bad kinds, one with 500 events, on two workers with five slots."""
    platform = make_postgres_platform(**DEFAULTS)
    with healthy_endpoints(platform) as receivers, bad_endpoints(platform, 100):
        start_workers(platform)
        platform.emit_together(1, "good.warm")
        wait_for_arrivals(receivers, 1)
        platform.emit_together(1, "bad.all")
        platform.emit_together(500, "bad.late")
        wait_for(lambda: slow_leases(platform) == SLOW_SLOTS, LIMIT, "the slow lane is full")

        for number in range(10):
            platform.emit_together(1, "good.one")
            wait_for_arrivals(receivers, 2 + number)
            assert slow_leases(platform) <= SLOW_SLOTS
        waits = pickup_of_another_queue(platform, 5)

        assert max(waits) < 5, "a bad endpoint would have held the slot for ten seconds"


def test_the_limits_of_the_queues_follow_the_slots_and_leave_operators_their_own(
    make_sqlite_platform: PlatformMaker,
) -> None:
    platform = make_sqlite_platform()
    with redis.Redis.from_url(platform.broker.url) as client:
        control = QueueControl(client)
        control.set_key_concurrency(WEBHOOKS.name, 4)
        platform.worker("one", slots=10)
        wait_for(lambda: control.limits(SLOW_WEBHOOKS.name).concurrency == 2, LIMIT, "a fifth of ten slots")
        platform.worker("two", slots=10)
        wait_for(lambda: control.limits(SLOW_WEBHOOKS.name).concurrency == 4, LIMIT, "a fifth of twenty")

        limits = control.limits(WEBHOOKS.name)
        assert (limits.concurrency, limits.key_concurrency) == (14, 4)


def test_a_burst_for_a_new_endpoint_leaves_the_slow_lane_with_its_first_fast_answer(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    endpoint = sqlite_platform.webhook_rows.endpoint(url=receiver.url)
    sqlite_platform.emit_together(200)
    sqlite_platform.worker(slots=SLOTS)

    sqlite_platform.wait_for_states(delivered=200)

    assert sqlite_platform.webhook_rows.lane(endpoint).slow_attempts == 0
    assert len(receiver.requests) == 200


def test_what_fails_fast_or_is_new_does_not_wait_behind_what_hangs(
    make_postgres_platform: PlatformMaker, receiver: Receiver
) -> None:
    """Fifty hanging endpoints share the one slow slot; the failing one does not need it, the new one is next."""
    platform = make_postgres_platform(WEBHOOK_TOTAL_TIMEOUT="4", WEBHOOK_RETRY_DELAYS="60")
    rows = platform.webhook_rows
    with Hostile(never_answers) as hanging, Receiver(lambda _: 500) as failing:
        for _ in range(50):
            endpoint = rows.endpoint(("bad.hang",), hanging.url)
            rows.change(Endpoint, endpoint, slow_attempts=SLOW_AFTER + 1)
        endpoint = rows.endpoint(("bad.fail",), failing.url)
        rows.change(Endpoint, endpoint, slow_attempts=0, consecutive_failures=5)
        rows.endpoint(("good.new",), receiver.url)
        platform.emit_together(1, "bad.hang")
        platform.worker(slots=SLOTS)
        wait_for(lambda: hanging.connections >= 1, LIMIT, "the slow slot is taken")
        platform.emit_together(3, "bad.fail")
        platform.emit_together(1, "good.new")

        failing.wait_for(3, LIMIT)
        assert hanging.connections == 1, "the failing one was served at once"
        receiver.wait_for(1, LIMIT)
        assert hanging.connections <= 2, "the new one came before the other forty-nine"


@pytest.mark.chaos
def test_a_thousand_bad_endpoints_are_not_felt_by_twenty_healthy_ones(make_postgres_platform: PlatformMaker) -> None:
    """The issue's numbers: p95 of the healthy ones and the pickup of another queue within twice that of alone."""
    platform = make_postgres_platform(**DEFAULTS)
    with healthy_endpoints(platform) as receivers, bad_endpoints(platform, 1000):
        start_workers(platform)
        p95_of_a_round(platform, receivers)  # warms up
        alone, pickup_alone = p95_of_a_round(platform, receivers), p95(pickup_of_another_queue(platform, 40))
        platform.emit_together(1, "bad.all")
        platform.emit_together(500, "bad.late")
        wait_for(lambda: slow_leases(platform) == SLOW_SLOTS, LIMIT, "the slow lane is full")

        beside, pickup_beside = p95_of_a_round(platform, receivers), p95(pickup_of_another_queue(platform, 40))

    assert beside <= 2 * alone, f"p95 {alone:.3f} s alone, {beside:.3f} s beside"
    assert pickup_beside <= 2 * pickup_alone, f"pickup {pickup_alone:.3f} s alone, {pickup_beside:.3f} s beside"


@contextmanager
def healthy_endpoints(platform: WebhookPlatform) -> Iterator[list[Receiver]]:
    with ExitStack() as stack:
        receivers = [stack.enter_context(Receiver()) for _ in range(HEALTHY)]
        for receiver in receivers:
            platform.webhook_rows.endpoint(("good.*",), receiver.url)
        yield receivers


@contextmanager
def bad_endpoints(platform: WebhookPlatform, count: int) -> Iterator[None]:
    """So many endpoints that hang, answer late, fail, refuse, and never connect; the first late one has a burst."""
    with ExitStack() as stack:
        hanging = stack.enter_context(Hostile(never_answers))
        late = stack.enter_context(Receiver(lambda _: Reply(200, delay=10)))
        failing = stack.enter_context(Receiver(lambda _: 500))
        refusing = closed_port()
        deaf = stack.enter_context(full_backlog())
        urls = [late.url, hanging.url, failing.url, refusing, deaf]
        for number, url in enumerate(islice(cycle(urls), count)):
            platform.webhook_rows.endpoint(("bad.*",) if number == 0 else ("bad.all",), url)
        yield


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


@contextmanager
def full_backlog() -> Iterator[str]:
    """A port that takes no connection and refuses none, as a host behind a firewall does."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def start_workers(platform: WebhookPlatform) -> None:
    for number in range(WORKERS):
        platform.worker(f"worker-{number}", slots=SLOTS)
    with redis.Redis.from_url(platform.broker.url) as client:
        control = QueueControl(client)
        wait_for(
            lambda: control.limits(SLOW_WEBHOOKS.name).concurrency == SLOW_SLOTS, LIMIT, "both workers' slots are known"
        )


def wait_for_arrivals(receivers: list[Receiver], count: int) -> None:
    for receiver in receivers:
        receiver.wait_for(count, LIMIT)


def slow_leases(platform: WebhookPlatform) -> int:
    """How many requests to bad endpoints are under way."""
    query = (
        select(func.count())
        .select_from(Delivery)
        .join(Endpoint, col(Endpoint.id) == col(Delivery.endpoint_id))
        .where(col(Delivery.lease_until) > utc_now(), col(Delivery.event_type).startswith("bad."))
    )
    with platform.database.session() as session:
        return session.scalar(query) or 0


def pickup_of_another_queue(platform: WebhookPlatform, times: int) -> list[float]:
    """Enqueue so many tasks of the queue maintenance, one after the other; return the seconds until each was taken."""
    waits = []
    with redis.Redis.from_url(platform.broker.url) as client:
        control = QueueControl(client)

        def is_taken() -> bool:
            return control.counts("maintenance").waiting == 0

        for _ in range(times):
            began = monotonic()
            sweep.delay()
            wait_for(is_taken, LIMIT, "the task is taken")
            waits.append(monotonic() - began)
    return waits


def p95_of_a_round(platform: WebhookPlatform, receivers: list[Receiver]) -> float:
    for receiver in receivers:
        receiver.clear()
    pacer = Event()
    for _ in range(EVENTS):
        platform.emit(event_type="good.one")
        pacer.wait(PACE)
    arrived = [request for receiver in receivers for request in receiver.wait_for(EVENTS, LIMIT)]
    return p95([(request.received_at - emitted_at(request.body)).total_seconds() for request in arrived])


def p95(values: list[Any]) -> float:
    return float(quantiles(values, n=20)[-1])
