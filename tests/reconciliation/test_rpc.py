"""JSON-RPC against nodes that misbehave: every fault is `unavailable`, bounded in time, and names no key."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from scripts.standins.receiver import Captured, Receiver, Reply
from tasks.reconciliation.chain import rpc
from tasks.reconciliation.chain.rpc import CallLimits, JsonRpc, NodeError, NodeUnreachableError


@pytest.fixture
def server() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def client(url: str, *, tries: int = 1, timeout: float = 5) -> JsonRpc:
    return JsonRpc(f"{url}/v1/secret-key", CallLimits(timedelta(seconds=timeout), tries))


def result(request: Captured, value: object = 7) -> Reply:
    return Reply(200, json.dumps({"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "result": value}).encode())


def test_a_result_is_returned() -> None:
    with Receiver(decide=result) as server:
        assert client(server.url).call("eth_blockNumber", []) == 7


def test_calls_of_one_thread_share_a_connection() -> None:
    with Receiver(decide=result) as server:
        node = client(server.url)
        for _ in range(3):
            node.call("eth_blockNumber", [])

        assert len({request.peer_port for request in server.requests}) == 1


def test_a_busy_node_is_asked_again() -> None:
    replies = [Reply(503), Reply(429)]

    def decide(request: Captured) -> Reply:
        return replies.pop() if replies else result(request)

    with Receiver(decide=decide) as server:
        assert client(server.url, tries=3).call("eth_blockNumber", []) == 7


def test_a_node_that_refuses_is_asked_once(server: Receiver) -> None:
    server.answers(401)

    with pytest.raises(NodeError, match="HTTP 401"):
        client(server.url, tries=3).call("eth_blockNumber", [])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(200, b"<html>"),
        Reply(200, b"\xff\xff"),
        Reply(200, b"[]"),
        Reply(200, b'{"jsonrpc": "2.0", "id": 999, "result": 1}'),
        Reply(200, b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}'),
    ],
)
def test_any_other_answer_is_unavailable_and_the_url_stays_secret(reply: Reply) -> None:
    with Receiver(decide=lambda _: reply) as server, pytest.raises((NodeUnreachableError, NodeError)) as raised:
        client(server.url).call("eth_blockNumber", [])

    assert "secret-key" not in str(raised.value)


def test_an_answer_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_BODY", 100_000)
    with (
        Receiver(decide=lambda _: Reply(200, b" " * 200_000)) as server,
        pytest.raises(NodeUnreachableError, match="more"),
    ):
        client(server.url).call("eth_blockNumber", [])


def test_a_node_that_does_not_answer_costs_its_time_out() -> None:
    with Receiver(decide=lambda _: Reply(delay=30)) as server:
        begin = time.monotonic()
        with pytest.raises(NodeUnreachableError):
            client(server.url, timeout=0.3).call("eth_blockNumber", [])

    assert time.monotonic() - begin < 10


def test_a_node_that_is_down_is_unreachable() -> None:
    with Receiver() as gone:
        url = gone.url
    with pytest.raises(NodeUnreachableError):
        client(url, tries=2).call("eth_blockNumber", [])


@pytest.mark.parametrize("url", ["", "ftp://node", "http://", "node:8545"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        JsonRpc(url, CallLimits())
