"""The receiver for demos and tests keeps what it got and answers as told."""

import doctest
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from scripts.standins import receiver
from scripts.standins.receiver import Captured, Receiver, Reply
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from tests.webhooks.posting import HEADERS


def test_scripted_answers_come_in_order_then_the_rule(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    receiver.answers(503, Reply(410, b"gone"))
    receiver.decides(lambda request: 404 if request.webhook_id == "msg_1" else 200)
    assert [client.post(receiver.url, HEADERS, b"").status for _ in range(3)] == [503, 410, 404]
    receiver.clear()
    assert receiver.requests == ()


def test_a_request_is_kept_with_its_time_of_arrival(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    client.post(receiver.url, HEADERS | {"X-Text": "ä"}, b"\x00\xff")
    (request,) = receiver.wait_for(1)
    assert (request.body, request.webhook_id, request.headers["x-text"]) == (b"\x00\xff", "msg_1", "ä")
    assert abs(datetime.now(UTC) - request.received_at) < timedelta(seconds=5)


def test_waiting_for_too_many_says_how_many_came(receiver: Receiver) -> None:
    with pytest.raises(TimeoutError, match=r"0 of 1 requests arrived within 0\.05 s"):
        receiver.wait_for(1, timeout=0.05)


def test_failing_twice_for_each_message_is_a_small_rule(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    seen: dict[str, int] = {}

    def twice(request: Captured) -> int:
        seen[request.webhook_id] = seen.get(request.webhook_id, 0) + 1
        return 200 if seen[request.webhook_id] > 2 else 500

    receiver.decides(twice)
    for name in ("a", "b"):
        assert [client.post(receiver.url, {"webhook-id": name}, b"").status for _ in range(3)] == [500, 500, 200]


def test_nothing_is_lost_when_many_threads_send(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    with ThreadPoolExecutor(32) as threads:
        bodies = [b"%d" % number for number in range(500)]
        list(threads.map(lambda body: client.post(receiver.url, HEADERS, body), bodies))
    assert sorted(request.body for request in receiver.wait_for(500)) == sorted(bodies)


def test_a_taken_port_is_an_error_at_the_start(receiver: Receiver) -> None:
    with pytest.raises(OSError, match="ddress already in use"), Receiver(port=receiver.port):
        pass


def test_stopping_twice_and_reading_afterwards_is_fine(client: AiohttpWebhookClient) -> None:
    with Receiver() as receiver:
        client.post(receiver.url, HEADERS, b"x")
    receiver.stop()
    assert [request.body for request in receiver.requests] == [b"x"]


def test_the_example_in_its_docstring_holds() -> None:
    assert doctest.testmod(receiver).failed == 0
