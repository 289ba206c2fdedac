"""HTTPS is always verified: authority, name, dates, version."""

import datetime as dt
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from taskyard.webhooks.http.response import ErrorCode
from taskyard.webhooks.http.webhook_client import ClientOptions
from tests.webhooks.posting import LOCAL, posted
from tests.webhooks.receivers import Hostile, Receiver, sends

CA = trustme.CA()
CERTIFICATES = {
    "good": lambda: CA.issue_cert("hooks.example", "127.0.0.1"),
    "expired": lambda: CA.issue_cert(
        "hooks.example",
        not_before=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        not_after=dt.datetime(2021, 1, 1, tzinfo=dt.UTC),
    ),
    "other name": lambda: CA.issue_cert("other.example", "127.0.0.2"),
    "stranger": lambda: trustme.CA().issue_cert("hooks.example"),
}


@pytest.fixture(scope="module")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return path


def server_context(kind: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATES[kind]().configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("kind", "host", "error", "words"),
    [
        ("good", "hooks.example", None, ""),
        ("good", "127.0.0.1", None, ""),
        ("expired", "hooks.example", ErrorCode.TLS_ERROR, "certificate has expired"),
        ("other name", "hooks.example", ErrorCode.TLS_NAME_MISMATCH, "Hostname mismatch"),
        ("other name", "127.0.0.1", ErrorCode.TLS_NAME_MISMATCH, "IP address mismatch"),
        ("stranger", "hooks.example", ErrorCode.TLS_ERROR, "unable to get local issuer"),
    ],
)
def test_certificates_are_always_verified(
    kind: str, host: str, error: ErrorCode | None, words: str, ca_file: Path
) -> None:
    options = ClientOptions(
        allow_nets=LOCAL.allow_nets, extra_ca_file=ca_file, lookup=lambda _host, _port: ["127.0.0.1"]
    )
    with Receiver(tls=server_context(kind), host_name=host) as receiver:
        answer = posted(options, receiver.url)
        assert answer.error is error
        assert words in answer.detail
        assert len(receiver.requests) == (0 if error else 1)


def test_without_the_extra_authority_its_certificates_are_refused() -> None:
    with Receiver(tls=server_context("good")) as receiver:
        assert posted(LOCAL, receiver.url).error is ErrorCode.TLS_ERROR


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_below_1_2_is_refused(ca_file: Path) -> None:
    context = server_context("good")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with Hostile(sends(b"HTTP/1.1 204 No Content\r\n\r\n"), tls=context) as receiver:
        answer = posted(replace(LOCAL, extra_ca_file=ca_file), receiver.url)
        assert (answer.status, answer.error) == (None, ErrorCode.TLS_ERROR)
        assert "protocol version" in answer.detail


def test_https_to_a_plain_server_and_http_to_a_tls_server_end_with_a_code(receiver: Receiver) -> None:
    assert posted(LOCAL, receiver.url.replace("http:", "https:")).error is ErrorCode.TLS_ERROR
    with Receiver(tls=server_context("good")) as secured:
        plain = posted(LOCAL, secured.url.replace("https:", "http:"))
        assert plain.error in {ErrorCode.CONNECTION_RESET, ErrorCode.PROTOCOL_ERROR}
