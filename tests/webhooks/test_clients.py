"""The client delivers, guards the concrete address, and can be used from threads, forks and other loops."""

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from taskyard.webhooks.http.response import Answer, ErrorCode
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient, ClientClosedError
from tests.webhooks.posting import HEADERS, LOCAL, QUICK, posted
from tests.webhooks.receivers import Hostile, Receiver, Reply, closes_kept_connections, never_answers


def test_the_receiver_gets_exactly_the_given_bytes_and_headers(
    client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    body = '{"price": 1.50, "stadt": "Köln"}'.encode()
    answer = client.post(receiver.url + "?a=b%20c", HEADERS, body)
    (request,) = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?a=b%20c", body)
    assert dict(request.headers) == HEADERS | {
        "Host": f"127.0.0.1:{receiver.port}",
        "User-Agent": "Taskyard-Webhooks",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Content-Length": str(len(body)),
    }
    assert answer.is_success
    assert (answer.status, answer.error, answer.remote_ip) == (200, None, "127.0.0.1")


def test_status_body_and_retry_after_are_reported(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    receiver.answers(Reply(503, "später\x00".encode() + b"\xff", {"Retry-After": "30"}))
    answer = client.post(receiver.url, HEADERS, b"{}")
    assert (answer.status, answer.retry_after, answer.truncated) == (503, "30", False)
    assert answer.excerpt == "später\ufffd\ufffd"
    assert not answer.is_success


@pytest.mark.parametrize(
    ("size", "kept", "truncated"),
    [(0, 0, False), (16384, 16384, False), (16385, 16384, True), (65535, 16384, True), (300_000, 16384, True)],
)
def test_16_kib_of_the_body_are_kept(
    client: AiohttpWebhookClient, receiver: Receiver, size: int, kept: int, *, truncated: bool
) -> None:
    receiver.answers(Reply(500, b"x" * size))
    answer = client.post(receiver.url, HEADERS, b"{}")
    assert (len(answer.excerpt), answer.truncated) == (kept, truncated)


def test_a_redirect_is_reported_and_never_followed(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    with Receiver() as other:
        for status in (301, 302, 303, 307, 308):
            receiver.answers(Reply(status, headers={"Location": other.url}))
            assert client.post(receiver.url, HEADERS, b"{}").status == status
        assert other.requests == ()


def test_cookies_are_not_sent_back(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    receiver.answers(Reply(200, headers={"Set-Cookie": "a=b"}))
    for _ in range(2):
        client.post(receiver.url, HEADERS, b"{}")
    assert "Cookie" not in receiver.requests[1].headers


def test_proxies_from_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert posted(LOCAL, receiver.url).status == 200
        assert proxy.requests == ()


def test_a_compressed_body_is_not_unpacked(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    packed = gzip.compress(b"x" * 10_000_000)
    receiver.answers(Reply(200, packed, {"Content-Encoding": "gzip"}))
    answer = client.post(receiver.url, HEADERS, b"{}")
    assert answer.is_success
    assert len(answer.excerpt) <= len(packed) < 16384


def test_the_connection_is_kept_and_used_again(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    answers = [client.post(receiver.url, HEADERS, b"{}") for _ in range(3)]
    assert len({request.peer_port for request in receiver.requests}) == 1
    assert answers[0].phases.connect_ms is not None
    assert answers[1].phases.connect_ms is None
    assert answers[1].remote_ip == "127.0.0.1"


def test_a_request_is_sent_once_even_if_its_kept_connection_closes(client: AiohttpWebhookClient) -> None:
    """The receiver may have handled it: a silent repetition would be an attempt that no book knows."""
    with Hostile(closes_kept_connections) as receiver:
        answers = [client.post(receiver.url, HEADERS, b"{}") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, None, 200, None]
        assert [answer.is_stale for answer in answers] == [False, True, False, True]
        assert answers[1].error is ErrorCode.CONNECTION_RESET
        assert receiver.requests == 4


def test_phases_are_measured(receiver: Receiver) -> None:
    receiver.answers(Reply(200, delay=0.2))
    named = replace(LOCAL, lookup=lambda _host, _port: ["127.0.0.1"])
    phases = posted(named, f"http://hooks.example:{receiver.port}/").phases
    assert phases.dns_ms is not None
    assert phases.connect_ms is not None
    assert phases.ttfb_ms is not None
    assert phases.dns_ms + phases.connect_ms + 200 <= phases.ttfb_ms <= phases.total_ms < 10_000


def test_two_hundred_threads_are_served_at_once(client: AiohttpWebhookClient) -> None:
    with Receiver(lambda _request: Reply(200, delay=0.3)) as receiver:
        started = monotonic()
        with ThreadPoolExecutor(200) as threads:
            answers = list(threads.map(lambda _: client.post(receiver.url, HEADERS, b"{}"), range(200)))
        assert {answer.status for answer in answers} == {200}
        assert monotonic() - started < 30  # one after the other would take a minute


def test_a_receiver_that_hangs_does_not_hold_up_another(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    with Hostile(never_answers) as hanging, ThreadPoolExecutor(150) as threads:
        stuck = [threads.submit(client.post, hanging.url, HEADERS, b"{}") for _ in range(150)]
        hanging.wait_for_connections(150)
        answers = [client.post(receiver.url, HEADERS, b"{}") for _ in range(10)]
        assert {answer.status for answer in answers} == {200}
        client.close()
        assert {type(future.exception()) for future in stuck} == {ClientClosedError}


def test_a_name_that_hangs_does_not_hold_up_another(receiver: Receiver) -> None:
    release = Hostile(never_answers)  # only its `ended` event is used

    def lookup(host: str, _port: int) -> Sequence[str]:
        if host == "stuck.example":
            release.ended.wait(20)
        return ["127.0.0.1"]

    client = AiohttpWebhookClient(replace(LOCAL, lookup=lookup))
    with release, ThreadPoolExecutor(100) as threads:
        stuck = [
            threads.submit(client.post, "http://stuck.example:9/", HEADERS, b"{}", timeouts=QUICK) for _ in range(100)
        ]
        assert client.post(f"http://good.example:{receiver.port}/", HEADERS, b"{}").status == 200
        assert {future.result().error for future in stuck} == {ErrorCode.TIMEOUT_CONNECT}
        client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "other.example"},
        {"content-length": "1"},
        {"Transfer-Encoding": "chunked"},
        {"X": "a\r\nY: b"},
        {"X": "a\x00b"},
        {"X:Y": "z"},
        {"": "z"},
        {"X Y": "z"},
    ],
)
def test_headers_that_could_smuggle_a_second_request_are_refused(
    headers: dict[str, str], client: AiohttpWebhookClient, receiver: Receiver
) -> None:
    assert client.post(receiver.url, headers, b"{}").error is ErrorCode.INVALID_REQUEST
    assert receiver.requests == ()


def test_a_refused_connection_is_named(client: AiohttpWebhookClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    answer = client.post(url, HEADERS, b"{}")
    assert (answer.error, answer.detail) == (ErrorCode.CONNECTION_REFUSED, "the endpoint refused the connection")


def test_a_coroutine_can_post_on_its_own_loop(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    async def scenario() -> list[Answer]:
        try:
            return await asyncio.gather(*(client.apost(receiver.url, HEADERS, b"{}") for _ in range(5)))
        finally:
            await client.aclose()

    assert [answer.status for answer in asyncio.run(scenario())] == [200] * 5
    assert client.post(receiver.url, HEADERS, b"{}").status == 200


def test_after_close_a_post_is_refused_and_close_may_be_repeated(receiver: Receiver) -> None:
    client = AiohttpWebhookClient(LOCAL)
    assert client.post(receiver.url, HEADERS, b"{}").status == 200
    client.close()
    client.close()
    with pytest.raises(ClientClosedError):
        client.post(receiver.url, HEADERS, b"{}")
    assert not [thread for thread in threading.enumerate() if thread.name == "webhook-client"]


FORKING = """
import os, sys
from taskyard.webhooks.http.ssrf_policy import parse_nets
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient, ClientOptions

url = sys.argv[1]
client = AiohttpWebhookClient(ClientOptions(allow_nets=parse_nets("127.0.0.0/8"), allow_http=True))
def post(who):
    answer = client.post(url, {"X-Who": who}, b"")
    assert answer.status == 200, answer
post("parent")
children = []
for number in range(3):
    child = os.fork()
    if not child:
        post(f"child {number}")
        post(f"child {number}")
        client.close()
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
post("parent")
client.close()
sys.exit(any(codes))
"""


def test_a_client_works_before_and_after_a_fork_in_parent_and_children(receiver: Receiver) -> None:
    """A prefork worker may have used its client before it forks; a child that shared its sockets would mix answers."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKING, receiver.url],
        timeout=30,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    ports: dict[str, set[int]] = {}
    for request in receiver.requests:
        ports.setdefault(request.headers["X-Who"], set()).add(request.peer_port)
    assert len(receiver.requests) == 8
    assert {who: len(used) for who, used in ports.items()} == {"parent": 1, "child 0": 1, "child 1": 1, "child 2": 1}
    assert len(set.union(*ports.values())) == 4
