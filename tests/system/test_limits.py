"""An endpoint's limits hold over all worker processes, as its receiver sees them."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select
from sqlmodel import col

from taskyard.webhooks.models import DeliveryAttempt
from tests.nodes.nodes import WorkerNode
from tests.system.conftest import PlatformMaker
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Captured, Receiver, Reply

WORKERS = 3
THINKING = 0.2  # seconds that the receiver takes


def test_no_more_requests_are_in_flight_than_the_endpoint_allows(
    make_postgres_platform: PlatformMaker, receiver: Receiver
) -> None:
    platform = make_postgres_platform()
    platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=4)
    receiver.decides(lambda _: Reply(200, delay=THINKING))
    workers = start_workers(platform)

    platform.emit_together(80)
    platform.wait_for_states(delivered=80)

    assert len(receiver.requests) == 80
    assert most_in_flight(receiver.requests) <= 4
    assert all("webhook.attempted" in worker.logs() for worker in workers), "all three processes sent"


def test_no_more_requests_start_than_the_rate_allows(make_postgres_platform: PlatformMaker, receiver: Receiver) -> None:
    """20 a second, three workers: at most 21 in any second, 204 in any ten, and not much less than that either."""
    rate, number = 20.0, 260
    platform = make_postgres_platform()
    platform.webhook_rows.endpoint(url=receiver.url, rate_per_second=rate, max_concurrency=100)
    start_workers(platform)

    platform.emit_together(number)
    platform.wait_for_states(delivered=number)

    with platform.database.session() as session:
        started = sorted(session.scalars(select(col(DeliveryAttempt.started_at))))
    times = [(moment - started[0]).total_seconds() for moment in started]
    assert len(receiver.requests) == len(times) == number
    assert most_within(times, 1.0) <= rate + 1
    assert most_within(times, 10.0) <= rate * 10 * 1.02
    assert times[-1] <= 4 * number / rate, "a limit is no standstill, on a busy machine either"


def test_the_breaker_spares_a_failing_receiver_and_all_arrives_when_it_is_mended(
    make_sqlite_platform: PlatformMaker, receiver: Receiver
) -> None:
    """Open, one probe after each pause; with the first success the lane is whole again."""
    platform = make_sqlite_platform(
        WEBHOOK_BREAKER_FAILURES="5", WEBHOOK_BREAKER_OPEN="1", WEBHOOK_RETRY_DELAYS=",".join(["0.05"] * 20)
    )
    endpoint = platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=2)
    receiver.decides(lambda _: 500)
    platform.worker()
    platform.emit_together(30)
    wait_for(lambda: platform.webhook_rows.lane(endpoint).breaker_openings >= 1, LIMIT, "the breaker is open")
    opened = len(receiver.requests)
    assert opened <= 5 + 1, "five failures, and one that was under way"

    wait_until_probed(platform, receiver, opened)
    assert len(receiver.requests) <= opened + 2, "one probe at a time, not thirty deliveries"
    receiver.decides(lambda _: 200)

    platform.wait_for_states(delivered=30, sweeping=True)
    assert platform.webhook_rows.lane(endpoint).breaker_openings == 0


def test_a_thousand_deliveries_through_a_narrow_lane_need_few_claims(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    """Nobody polls: a delivery that finds the lane full waits in SQL until it is released."""
    sqlite_platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=1, retry_delays=(timedelta(seconds=60),))
    receiver.decides(lambda _: Reply(200, delay=0.02))
    worker = sqlite_platform.worker()

    sqlite_platform.emit_together(150)
    sqlite_platform.wait_for_states(delivered=150)

    runs = worker.logs().count("webhooks.deliver[") // 2  # received and succeeded
    assert runs <= 2 * 150 + 50, "each ran once to be refused, and once to be sent"


def start_workers(platform: WebhookPlatform) -> list[WorkerNode]:
    return [platform.worker(f"worker-{number}") for number in range(WORKERS)]


def wait_until_probed(platform: WebhookPlatform, receiver: Receiver, opened: int) -> None:
    """Let time pass until a probe has gone out, as the sweeper sends one after the pause."""
    wait_for(
        lambda: platform.sweep_now_and_then() and len(receiver.requests) > opened,
        LIMIT,
        "a probe went out after the pause",
    )


def most_in_flight(requests: Sequence[Captured]) -> int:
    """The receiver held each request for at least THINKING seconds from its arrival on."""
    starts = [request.monotonic_at for request in requests]
    return max(sum(1 for other in starts if start <= other < start + THINKING) for start in starts)


def most_within(times: Sequence[float], seconds: float) -> int:
    return max(sum(1 for other in times if start <= other < start + seconds) for start in times)
