"""Killed at the worst moments: everything arrives, duplicates carry the same id, and no row is stuck."""

import random
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import text

from taskyard.broker.admin.queue_control import QueueControl
from tests.system.conftest import PlatformMaker
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Receiver, Reply

THINKING = 3.0  # seconds that a receiver takes to answer while we take the database away
FLUSHED_DELAYS = (timedelta(seconds=3), timedelta(seconds=3))


def test_a_worker_killed_while_the_receiver_thinks(platform: WebhookPlatform, receiver: Receiver) -> None:
    """The request is out, its answer unknown: it is sent again under the same id, in the worker's lease time."""
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.answers(Reply(200, delay=60))
    first = platform.worker("first")
    (event_id,) = platform.emit()
    receiver.wait_for(1, timeout=LIMIT)

    first.kill()
    platform.worker("second")
    platform.wait_for_states(delivered=1, sweeping=True)  # the lease of fifteen seconds really runs out here

    assert [request.webhook_id for request in receiver.requests] == [event_id, event_id]
    assert answers_of(platform, platform.delivery_of(event_id)) == [("worker_lost", None), (None, 200)]
    assert_nothing_is_stuck(platform)


def test_a_worker_killed_after_the_claim_before_its_request_was_read(platform: WebhookPlatform) -> None:
    """A socket that listens and accepts nobody: the worker holds the lease, and no receiver has seen a byte."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        platform.webhook_rows.endpoint(url=f"http://127.0.0.1:{port}/hook")
        first = platform.worker("first")
        (event_id,) = platform.emit()
        delivery = platform.delivery_of(event_id)
        wait_for(lambda: platform.webhook_rows.delivery(delivery).lease_token, LIMIT, "the worker has claimed it")
        first.kill()

    platform.webhook_rows.lose_worker(delivery)  # what comes to pass in fifteen seconds
    with Receiver(port=port) as receiver:
        platform.worker("second")
        platform.wait_for_states(delivered=1, sweeping=True)

        assert [request.webhook_id for request in receiver.requests] == [event_id]
    assert answers_of(platform, delivery) == [("worker_lost", None), (None, 200)]
    assert_nothing_is_stuck(platform)


def test_a_worker_killed_after_the_answer_before_its_record(platform: WebhookPlatform, receiver: Receiver) -> None:
    """The database is locked while the receiver thinks, so its answer cannot be written; then the worker is killed."""
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.answers(Reply(200, delay=THINKING))
    first = platform.worker("first")
    (event_id,) = platform.emit()
    (request,) = receiver.wait_for(1, timeout=LIMIT)
    with locked(platform):
        assert monotonic() < request.monotonic_at + THINKING, "too slow to lock the database before the answer"
        answered = request.monotonic_at + THINKING + 0.5
        wait_for(lambda: monotonic() > answered, 10, "the receiver has answered, and the worker has read it")
        first.kill()

    delivery = platform.delivery_of(event_id)
    assert answers_of(platform, delivery) == []
    platform.webhook_rows.lose_worker(delivery)
    platform.worker("second")
    platform.wait_for_states(delivered=1, sweeping=True)

    assert [request.webhook_id for request in receiver.requests] == [event_id, event_id]
    assert answers_of(platform, delivery) == [("worker_lost", None), (None, 200)]
    assert_nothing_is_stuck(platform)


def test_a_worker_killed_between_the_last_record_and_the_dead_letter(
    platform: WebhookPlatform, receiver: Receiver
) -> None:
    """The broker stands still when the delivery ends in SQL; the next worker must bury it, and not send again."""
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.answers(Reply(410, delay=1))
    first = platform.worker("first")
    platform.emit()
    receiver.wait_for(1, timeout=LIMIT)
    platform.broker.container.suspend()
    platform.wait_for_states(exhausted=1)
    first.kill()
    platform.broker.container.resume()

    platform.worker("second")

    (letter,) = platform.wait_for_dead_letters(1)
    assert (letter.reason, letter.error_type) == ("exhausted", "DeliveryExhaustedError")
    assert len(receiver.requests) == 1


def test_an_app_killed_between_its_commit_and_the_broker(platform: WebhookPlatform, receiver: Receiver) -> None:
    platform.webhook_rows.endpoint(url=receiver.url)

    assert platform.emit_and_die(5) == -signal.SIGKILL

    assert platform.states() == {"pending": 5}
    assert messages_in(platform) == 0
    platform.worker()
    platform.wait_for_states(delivered=5, sweeping=True)
    assert_each_arrived_once(platform, receiver, 5)


def test_a_broker_flushed_with_a_hundred_pending_deliveries(platform: WebhookPlatform, receiver: Receiver) -> None:
    platform.webhook_rows.endpoint(url=receiver.url)
    platform.emit_together(100)
    assert messages_in(platform) == 100

    platform.broker.flush()

    platform.worker()
    platform.wait_for_states(delivered=100, sweeping=True)
    assert_each_arrived_once(platform, receiver, 100)


def test_a_broker_flushed_while_they_wait_for_their_retry(sqlite_platform: WebhookPlatform, receiver: Receiver) -> None:
    sqlite_platform.webhook_rows.endpoint(url=receiver.url, retry_delays=FLUSHED_DELAYS)
    receiver.answers(*[500] * 20)
    sqlite_platform.worker()
    sqlite_platform.emit_together(20)
    receiver.wait_for(20, timeout=LIMIT)
    sqlite_platform.wait_for_states(retrying=20)

    sqlite_platform.broker.flush()

    sqlite_platform.wait_for_states(delivered=20, sweeping=True)
    assert len(receiver.requests) == 40


def test_a_broker_that_takes_nothing_more_does_not_fail_the_apps_commit(
    platform: WebhookPlatform, receiver: Receiver
) -> None:
    """Out of memory, it refuses each message; the rows are there, and the sweeper hands them over later."""
    platform.webhook_rows.endpoint(url=receiver.url)
    with Redis.from_url(platform.broker.url) as client:
        client.config_set("maxmemory", 1)
        platform.emit(3)
        client.config_set("maxmemory", 0)

    assert platform.states() == {"pending": 3}
    assert messages_in(platform) == 0
    platform.worker()
    platform.wait_for_states(delivered=3, sweeping=True)
    assert_each_arrived_once(platform, receiver, 3)


@pytest.mark.chaos
def test_workers_killed_at_random_lose_nothing(make_postgres_platform: PlatformMaker, receiver: Receiver) -> None:
    """Twenty kills among three workers and six hundred deliveries to a receiver that fails now and then."""
    chance = random.Random(7)  # noqa: S311 - the same run each time
    platform = make_postgres_platform(WEBHOOK_RETRY_DELAYS=",".join(["0.2"] * 20), WEBHOOK_TOTAL_TIMEOUT="2")
    platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=20)
    receiver.decides(lambda _: Reply(500 if chance.random() < 0.2 else 200, delay=chance.random() * 0.3))
    workers = [platform.worker(f"w{number}") for number in range(3)]
    for kill in range(20):
        ids = platform.emit_together(30)
        wait_for(lambda ids=ids: {r.webhook_id for r in receiver.requests} & set(ids), 60, "some of them arrived")  # type: ignore[misc]  # a closure over the round
        victim = workers[kill % 3]
        victim.kill()
        workers[kill % 3] = platform.worker(f"w{kill % 3}")

    platform.wait_for_states(180, delivered=600, sweeping=True)

    assert len({request.webhook_id for request in receiver.requests}) == 600
    assert_nothing_is_stuck(platform)


def answers_of(platform: WebhookPlatform, delivery: UUID) -> list[tuple[str | None, int | None]]:
    return [(row.error, row.status) for row in platform.webhook_rows.attempts(delivery)]


def messages_in(platform: WebhookPlatform) -> int:
    with Redis.from_url(platform.broker.url) as client:
        return sum(QueueControl(client).counts(queue).waiting for queue in ("webhook-deliveries", "webhook-slow"))


def assert_each_arrived_once(platform: WebhookPlatform, receiver: Receiver, number: int) -> None:
    assert len(receiver.requests) == number
    assert {request.webhook_id for request in receiver.requests} == {
        row.event_id for row in platform.webhook_rows.deliveries()
    }
    assert_nothing_is_stuck(platform)


def assert_nothing_is_stuck(platform: WebhookPlatform) -> None:
    for row in platform.webhook_rows.deliveries():
        assert row.state in {"delivered", "exhausted"}
        assert (row.lease_token, row.lease_until, row.next_attempt_at) == (None, None, None)


@contextmanager
def locked(platform: WebhookPlatform) -> Iterator[None]:
    """Hold the database, so that no attempt can be recorded."""
    with platform.database.session() as session, session.begin():
        if platform.database.kind == "postgresql":
            session.execute(text("LOCK TABLE taskyard_webhook_endpoints IN ACCESS EXCLUSIVE MODE"))
        else:
            session.execute(text("UPDATE taskyard_webhook_endpoints SET url = url"))
        yield
