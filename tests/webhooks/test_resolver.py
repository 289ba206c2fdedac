"""Whatever a URL or a resolver says, only the concrete address decides whether a connection is made."""

import socket
from dataclasses import replace

import pytest

from taskyard.webhooks.http.resolver import Lookup, guarded_socket
from taskyard.webhooks.http.response import Answer, ErrorCode, Phases
from taskyard.webhooks.http.ssrf_policy import BLOCKED_MESSAGE, BlockedAddressError, parse_nets
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient
from tests.webhooks.posting import HEADERS, LOCAL, posted
from tests.webhooks.receivers import Receiver, Reply

BLOCKED = Answer(error=ErrorCode.BLOCKED_ADDRESS, detail=BLOCKED_MESSAGE)
STRICT = replace(LOCAL, allow_nets=())


def test_a_blocked_literal_is_refused_at_connect_time_and_tells_nothing(receiver: Receiver) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    closed_port = free.getsockname()[1]
    free.close()
    urls = [f"http://127.0.0.1:{port}/" for port in (receiver.port, closed_port)]
    urls += [f"http://[::1]:{receiver.port}/", f"http://[::ffff:127.0.0.1]:{receiver.port}/", "http://127.9.9.9/"]
    assert [posted(STRICT, url) for url in urls] == [BLOCKED] * len(urls)
    assert BLOCKED.phases == Phases()
    assert receiver.requests == ()


@pytest.mark.parametrize("host", ["localhost", "0x7f000001", "0x7f.1", "①②⑦.⓪.⓪.①", "LOCALHOST"])
def test_names_and_spellings_of_loopback_are_refused(host: str, receiver: Receiver) -> None:
    answer = posted(STRICT, f"http://{host}:{receiver.port}/")
    assert answer == BLOCKED or answer.error is ErrorCode.INVALID_URL
    assert receiver.requests == ()


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0177.0.0.1", "0", "017700000001"])
def test_numbers_that_are_no_plain_address_never_connect_even_where_loopback_is_allowed(
    host: str, receiver: Receiver
) -> None:
    assert posted(LOCAL, f"http://{host}:{receiver.port}/").error in {ErrorCode.INVALID_URL, ErrorCode.BLOCKED_ADDRESS}
    assert receiver.requests == ()


def test_a_name_with_one_blocked_address_among_good_ones_is_refused(receiver: Receiver) -> None:
    only_first = replace(LOCAL, allow_nets=parse_nets("127.0.0.1/32"), lookup=lambda _h, _p: ["127.0.0.1", "127.0.0.2"])
    assert posted(only_first, f"http://mixed.example:{receiver.port}/") == BLOCKED
    assert receiver.requests == ()


def test_a_name_that_is_rebound_to_a_blocked_address_is_refused_at_the_next_connection() -> None:
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    options = replace(
        LOCAL, allow_nets=parse_nets("127.0.0.1/32"), lookup=lambda _host, _port: next(answers), dns_ttl=0
    )
    client = AiohttpWebhookClient(options)
    with Receiver(lambda _request: Reply(200, headers={"Connection": "close"})) as receiver:
        url = f"http://rebound.example:{receiver.port}/"
        assert client.post(url, HEADERS, b"{}").status == 200
        assert client.post(url, HEADERS, b"{}") == BLOCKED
        assert len(receiver.requests) == 1
    client.close()


def test_no_socket_is_made_for_a_blocked_address_whatever_the_resolver_said() -> None:
    blocked = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.2", 80))
    with pytest.raises(BlockedAddressError):
        guarded_socket(parse_nets("127.0.0.1/32"), blocked)
    guarded_socket(parse_nets("127.0.0.2/32"), blocked).close()


def _no_such_name(_host: str, _port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("lookup", [_no_such_name, lambda _host, _port: []])
def test_a_name_without_an_address_is_a_dns_error(lookup: Lookup) -> None:
    assert posted(replace(LOCAL, lookup=lookup), "http://nothing.example/").error is ErrorCode.DNS_ERROR


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://" + "a" * 70 + ".example/", ErrorCode.DNS_ERROR),
        ("http://a..b/", ErrorCode.DNS_ERROR),
        ("ftp://127.0.0.1/", ErrorCode.INVALID_URL),
        ("", ErrorCode.INVALID_URL),
        ("http://", ErrorCode.INVALID_URL),
        ("http://user:pass@127.0.0.1/", ErrorCode.INVALID_URL),
        ("http://127.0.0.1/\r\nX-Evil: 1", ErrorCode.INVALID_URL),
        ("http://127.0.0.1:99999/", ErrorCode.INVALID_URL),
        ("http://[::1/", ErrorCode.INVALID_URL),
    ],
)
def test_a_url_that_leads_nowhere_is_an_answer_too(url: str, error: ErrorCode) -> None:
    assert posted(LOCAL, url).error is error


def test_plain_http_needs_the_setting(receiver: Receiver) -> None:
    assert posted(replace(LOCAL, allow_http=False), receiver.url).error is ErrorCode.INVALID_URL
