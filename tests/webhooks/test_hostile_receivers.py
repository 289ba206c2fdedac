"""Whatever a receiver does, a request ends inside its deadline and in little memory."""

import gzip
import socket
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from statistics import median
from time import monotonic, process_time

import pytest

from taskyard.webhooks.http.response import Answer, ErrorCode, Timeouts
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from tests.webhooks.posting import HEADERS, LOCAL, QUICK, posted
from tests.webhooks.receivers import (
    Behaviour,
    Hostile,
    Receiver,
    Visit,
    bomb_of_gzip,
    breaks_a_chunk,
    closes_at_once,
    closes_in_the_headers,
    drips_body,
    drips_headers,
    floods_with_continue,
    never_answers,
    sends,
    sends_endless_body,
    sends_tiny_chunks,
)

MEMORY_CAP = 4 * 1024 * 1024  # bytes that one request may hold at its worst
FIRM = Timeouts(connect=timedelta(seconds=2), total=timedelta(seconds=2), body=timedelta(seconds=0.3))
SLACK = 2.0  # seconds that a busy machine may add to a deadline
OK = b"HTTP/1.1 200 OK\r\n"
HALF_LINE = b"X: " + b"y" * 4000 + b"\r\n"


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail when Python's memory, of client and receiver together, ever grows by more than the cap."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < MEMORY_CAP
    finally:
        tracemalloc.stop()


def treated(behaviour: Behaviour) -> Answer:
    with Hostile(behaviour) as receiver, little_memory():
        started = monotonic()
        answer = posted(LOCAL, receiver.url, FIRM)
        assert monotonic() - started < FIRM.total.total_seconds() + SLACK
        assert answer.phases.total_ms < (FIRM.total.total_seconds() + SLACK) * 1000
        return answer


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        pytest.param(never_answers, ErrorCode.TIMEOUT_TOTAL, id="takes the connection and is silent"),
        pytest.param(drips_headers, ErrorCode.TIMEOUT_TOTAL, id="drips headers"),
        pytest.param(closes_at_once, ErrorCode.CONNECTION_RESET, id="closes at once"),
        pytest.param(closes_in_the_headers, ErrorCode.CONNECTION_RESET, id="closes in the headers"),
        pytest.param(sends(b"220 mail.example ESMTP\r\n"), ErrorCode.PROTOCOL_ERROR, id="speaks SMTP"),
        pytest.param(sends(b"\x00\xff" * 5000), ErrorCode.PROTOCOL_ERROR, id="sends garbage"),
        pytest.param(sends(b"HTTP/9.9 200 OK\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="HTTP of the future"),
        pytest.param(sends(b"HTTP/1.1 abc OK\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="no status"),
        pytest.param(sends(OK + b"no colon\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="bad header"),
        pytest.param(sends(OK + b"Content-Length: x\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="bad length"),
        pytest.param(sends(OK + b"Content-Length: 9" + b"9" * 30 + b"\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="huge"),
        pytest.param(sends(OK + b"X: " + b"y" * 50_000_000), ErrorCode.RESPONSE_TOO_LARGE, id="one endless header"),
        pytest.param(sends(OK + b"X: y\r\n" * 1_000_000), ErrorCode.RESPONSE_TOO_LARGE, id="endless headers"),
        pytest.param(sends(b"HTTP/1.1 200 " + b"y" * 50_000_000), ErrorCode.RESPONSE_TOO_LARGE, id="endless reason"),
        pytest.param(floods_with_continue, ErrorCode.PROTOCOL_ERROR, id="endless 100 Continue"),
        pytest.param(sends(OK + HALF_LINE * 63), ErrorCode.RESPONSE_TOO_LARGE, id="many long headers"),
        pytest.param(sends(b"y" * 50_000_000), ErrorCode.PROTOCOL_ERROR, id="endless garbage"),
    ],
)
def test_without_a_status_the_answer_is_an_error(behaviour: Behaviour, error: ErrorCode) -> None:
    answer = treated(behaviour)
    assert (answer.status, answer.error) == (None, error)


@pytest.mark.parametrize(
    ("behaviour", "status", "excerpt"),
    [
        pytest.param(drips_body(b"200 OK"), 200, "z", id="body drip after 200"),
        pytest.param(drips_body(b"500 No"), 500, "z", id="body drip after 500"),
        pytest.param(drips_body(b"410 Gone"), 410, "z", id="body drip after 410"),
        pytest.param(sends_endless_body, 200, "x" * 16384, id="100 MB body"),
        pytest.param(sends_tiny_chunks, 200, "z" * 16384, id="endless chunks of one byte"),
        pytest.param(sends(OK + b"Content-Length: 10\r\n\r\nabc"), 200, "abc", id="closes in the body"),
        pytest.param(breaks_a_chunk, 200, "abc", id="broken chunk"),
    ],
)
def test_once_the_status_is_known_a_bad_body_changes_nothing(behaviour: Behaviour, status: int, excerpt: str) -> None:
    answer = treated(behaviour)
    assert (answer.status, answer.error, answer.truncated) == (status, None, True)
    assert answer.excerpt.startswith(excerpt)
    assert len(answer.excerpt) <= 16384


def test_a_slow_body_after_200_is_given_up_before_the_deadline() -> None:
    patient = Timeouts(connect=timedelta(seconds=1), total=timedelta(seconds=30), body=timedelta(seconds=0.2))
    with Hostile(drips_body(b"200 OK")) as receiver:
        answer = posted(LOCAL, receiver.url, patient)
    assert answer.is_success
    assert answer.phases.total_ms < 10_000


def test_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 60_000_000)
    answer = treated(bomb_of_gzip(bomb))
    assert answer.is_success
    assert 16000 < len(answer.excerpt) <= 16384


def test_an_endless_row_of_interim_answers_ends_with_the_deadline() -> None:
    def continues(visit: Visit) -> None:
        visit.read_request()
        for _ in visit.drops():
            visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")

    assert treated(continues).error is ErrorCode.TIMEOUT_TOTAL


def test_a_receiver_whose_backlog_is_full_costs_the_connect_timeout_only() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [_filler(address) for _ in range(4)]
        started = monotonic()
        answer = posted(LOCAL, f"http://127.0.0.1:{address[1]}/", QUICK)
        assert answer.error is ErrorCode.TIMEOUT_CONNECT
        assert monotonic() - started < QUICK.connect.total_seconds() + SLACK
        for filler in fillers:
            filler.close()


def _filler(address: tuple[str, int]) -> socket.socket:
    filler = socket.socket()
    filler.settimeout(0)
    filler.connect_ex(address)
    return filler


def test_a_tls_handshake_that_never_comes_costs_the_connect_timeout_only() -> None:
    with Hostile(never_answers) as receiver:
        answer = posted(LOCAL, receiver.url.replace("http:", "https:"), QUICK)
        assert answer.error is ErrorCode.TIMEOUT_CONNECT
        assert answer.phases.total_ms < (QUICK.connect.total_seconds() + SLACK) * 1000


def test_hostile_answers_leave_the_client_fit_for_others(client: AiohttpWebhookClient, receiver: Receiver) -> None:
    for behaviour in (drips_headers, sends_endless_body, closes_in_the_headers, sends(b"\x00" * 5000)):
        with Hostile(behaviour) as hostile:
            client.post(hostile.url, HEADERS, b"{}", timeouts=QUICK)
        assert client.post(receiver.url, HEADERS, b"{}").status == 200


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"x" * 5000, b"\xed\xb3\xbf", b"1\x80"])
def test_a_hostile_retry_after_is_text_that_can_be_stored(raw: bytes) -> None:
    answer = treated(sends(b"HTTP/1.1 503 No\r\nRetry-After: " + raw + b"\r\nContent-Length: 0\r\n\r\n"))
    assert answer.retry_after is not None
    assert len(answer.retry_after.encode("utf-8")) <= 600


@pytest.mark.parametrize("behaviour", [floods_with_continue, sends_tiny_chunks])
def test_the_cpu_of_an_attempt_is_bounded_whatever_is_sent(behaviour: Behaviour) -> None:
    """Ten attempts cost less CPU, the receiver's share included, than a tenth of the time that each may take."""
    firm = Timeouts(connect=timedelta(seconds=5), total=timedelta(seconds=20), body=timedelta(seconds=0.3))
    with Hostile(behaviour) as receiver:
        client = AiohttpWebhookClient(LOCAL)
        began = process_time()
        with ThreadPoolExecutor(10) as threads:
            list(threads.map(lambda _: client.post(receiver.url, HEADERS, b"{}", timeouts=firm), range(10)))
        used = process_time() - began
        client.close()
    assert used < 2


def test_healthy_deliveries_beside_ten_floods_take_their_usual_time(receiver: Receiver) -> None:
    """Issue's case: ten connections that flood `100 Continue` slowed healthy deliveries a hundredfold."""
    client = AiohttpWebhookClient(LOCAL)
    alone = [client.post(receiver.url, HEADERS, b"{}").phases.total_ms for _ in range(50)]
    with Hostile(floods_with_continue) as flooding, ThreadPoolExecutor(10) as threads:
        floods = [threads.submit(client.post, flooding.url, HEADERS, b"{}") for _ in range(10)]
        beside = [client.post(receiver.url, HEADERS, b"{}").phases.total_ms for _ in range(50)]
        assert {flood.result().error for flood in floods} == {ErrorCode.PROTOCOL_ERROR}
    client.close()
    assert median(beside) < 10 * median(alone)
