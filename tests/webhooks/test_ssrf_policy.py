"""No webhook goes to an address that is not public, however it is written."""

import socket
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.webhooks.http.ssrf_policy import (
    BLOCKED_MESSAGE,
    BlockedAddressError,
    UrlRefusedError,
    check_address,
    check_url,
    is_public,
    parse_nets,
)

LOOPBACK = parse_nets("127.0.0.0/8, ::1/128")

BLOCKED = """
0.0.0.0 0.0.0.1 0.1.2.3 10.0.0.1 10.254.0.0 10.255.255.255 100.64.0.1 100.100.0.0 100.100.100.200 100.127.255.255
127.0.0.1 127.1.2.3 127.255.255.255 168.63.129.16 169.254.0.1 169.254.45.1 169.254.169.254 169.254.170.2
172.16.0.1 172.16.10.65 172.31.255.255 192.0.0.0 192.0.0.9 192.0.0.170 192.0.0.192 192.0.0.255 192.0.2.255
192.31.196.1 192.52.193.1 192.88.99.2 192.88.99.3 192.168.0.1 192.168.10.65 192.175.48.1 198.18.0.0 198.19.255.255
198.51.100.65 203.0.113.6 224.0.0.1 224.0.0.251 239.255.255.250 240.0.0.1 250.10.20.30 255.255.255.255
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:0.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:7f00:1
::ffff:0:127.0.0.1 0:0:0:ffff::1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::8.8.8.8 64:ff9b:1::a9fe:a9fe
100::1 100:0:0:1::1 2001::1 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe 2001:1::1 2001:2::1 2001:3::1
2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff::1 2001:db8::1 2001:db8:ffff::1
2002:7f00:1:: 2002:a9fe:a9fe:: 2002:c0a8:: 2002:808:808:: 2620:4f:8000::1 3ffe::1 3fff::1 3fff:fff::1 4000::1 5f00::1
fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fdff::1 fe80::1 fe80::1%1 febf::1 fec0::1 feff::1 ff00::1 ff02::1 ff0e::1
""".split()  # noqa: SIM905  a block reads better than a column of quoted strings

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.215.14 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0
192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8
2001:200::1 2001:4860:4860::8888 2003::1 2606:4700:4700::1111 2620:4f:8001::1 2a00:1450:4001:81b::200e 3ffd::1
""".split()  # noqa: SIM905  a block reads better than a column of quoted strings

# Microsoft's AntiSSRF, list "recommendedV1" of 2026: an independent list of the same facts.
INDEPENDENT = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::1/128 ::/128 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23
2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
""".split()  # noqa: SIM905  a block reads better than a column of quoted strings


@pytest.mark.parametrize("address", BLOCKED)
def test_special_addresses_are_refused_with_one_message(address: str) -> None:
    with pytest.raises(BlockedAddressError) as caught:
        check_address(address)
    assert str(caught.value) == BLOCKED_MESSAGE


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("text", INDEPENDENT)
def test_every_range_of_an_independent_list_is_refused_from_end_to_end(text: str) -> None:
    net = ip_network(text)
    for address in (net[0], net[-1], net[net.num_addresses // 2]):
        assert not is_public(address), address


@given(st.ip_addresses(v=4))
def test_for_ipv4_the_guard_is_exactly_the_independent_list(address: object) -> None:
    concrete = ip_address(str(address))
    listed = any(concrete in ip_network(text) for text in INDEPENDENT)
    assert is_public(concrete) is not listed


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_its_mapped_form(address: object) -> None:
    assert is_public(ip_address(f"::ffff:{address}")) is is_public(ip_address(str(address)))


@given(st.ip_addresses())
def test_whatever_the_library_calls_private_is_refused(address: object) -> None:
    concrete = ip_address(str(address))
    if isinstance(concrete, IPv6Address) and concrete.ipv4_mapped is not None:
        concrete = concrete.ipv4_mapped  # the library judges the outer form
    assert not (is_public(concrete) and (concrete.is_private or concrete.is_multicast or concrete.is_reserved))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.1.1.1 ", "x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BlockedAddressError):
        check_address(text)


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "8.8.8.8"):
        check_address(address, LOOPBACK)
    for address in ("10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "::2"):
        with pytest.raises(BlockedAddressError):
            check_address(address, LOOPBACK)


@pytest.mark.parametrize(
    ("net", "wrapped_public", "wrapped_private"),
    [
        ("64:ff9b::/96", "64:ff9b::8.8.8.8", "64:ff9b::169.254.169.254"),
        ("2002::/16", "2002:808:808::1", "2002:a9fe:a9fe::1"),
        ("2001::/32", "2001:0:4136:e378:8000:63bf:f7f7:f7f7", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
        ("::/96", "::8.8.8.8", "::127.0.0.1"),
    ],
)
def test_an_allowed_tunnel_does_not_open_what_lies_behind_it(
    net: str, wrapped_public: str, wrapped_private: str
) -> None:
    check_address(wrapped_public, parse_nets(net))
    with pytest.raises(BlockedAddressError):
        check_address(wrapped_private, parse_nets(net))


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "①②⑦.⓪.⓪.①", "localhost"])
def test_spellings_that_the_system_takes_for_loopback_are_refused_once_resolved(host: str) -> None:
    """The string is never trusted: libc reads all of these as 127.0.0.1 or 0.0.0.0."""
    addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)}
    assert addresses
    for address in addresses:
        with pytest.raises(BlockedAddressError):
            check_address(address)


def test_networks_are_read_from_text() -> None:
    assert parse_nets("") == ()
    assert parse_nets(" 10.0.0.0/8,fd00::/8 ") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        parse_nets("10.0.0.1/8")


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.com", "https://example.com/"),
        ("https://example.com?a=b", "https://example.com/?a=b"),
        ("https://EXAMPLE.com:443/a/b?c=d%20e", "https://example.com/a/b?c=d%20e"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://example.com./a", "https://example.com./a"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
        ("https://my_host.example.com/?q=a@b", "https://my_host.example.com/?q=a@b"),
        ("https://1password.com/x", "https://1password.com/x"),
        ("https://127.0.0.1.nip.io/x", "https://127.0.0.1.nip.io/x"),  # a name: its address decides, at connect time
    ],
)
def test_a_good_url_is_returned_in_its_normal_form(url: str, normal: str) -> None:
    assert check_url(url) == normal
    assert check_url(normal) == normal


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must start with https://"),
        ("example.com/x", "must start with https://"),
        ("//example.com/x", "must start with https://"),
        ("http://example.com/", "must start with https://"),
        ("ftp://example.com/", "must start with https://"),
        ("file:///etc/passwd", "must start with https://"),
        ("gopher://example.com:6379/_x", "must start with https://"),
        ("javascript:alert(1)", "must start with https://"),
        ("https:///x", "no host"),
        ("https:x", "no host"),
        ("https://user@example.com/", "user or password"),
        ("https://user:pass@example.com/", "user or password"),
        ("https://@example.com/", "user or password"),
        ("https://example.com@127.0.0.1/", "user or password"),
        ("https://example.com/#", "fragment"),
        ("https://example.com/#x", "fragment"),
        ("https://example.com/a b", "space"),
        (" https://example.com/", "space"),
        ("https://example.com/\r\nX-Evil: 1", "control character"),
        ("https://exam\tple.com/", "control character"),
        ("https://example.com\x00/", "control character"),
        ("https://example.com/\x85", "control character"),
        ("https://example.com/\ud800", "control character"),
        ("https://example.com\u2028/", "control character"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:25/", "port 25"),
        ("https://example.com:65536/", "cannot be read"),
        ("https://example.com:-1/", "cannot be read"),
        ("https://example.com:x/", "cannot be read"),
        ("https://127.0.0.1/", "must be a name"),
        ("https://8.8.8.8/", "must be a name"),
        ("https://[::1]/", "must be a name"),
        ("https://[::ffff:127.0.0.1]/", "must be a name"),
        ("https://[2606:4700:4700::1111]/", "must be a name"),
        ("https://127.1/", "not a number"),
        ("https://0x7f000001/", "not a number"),
        ("https://0x7f.1/", "not a number"),
        ("https://2130706433/", "not a number"),
        ("https://0177.0.0.1/", "not a number"),
        ("https://0/", "not a number"),
        ("https://127.0.0.1./", "not a number"),
        ("https://1.2.3.4.5/", "not a number"),
        ("https://①②⑦.⓪.⓪.①/", "must be a name"),
        ("https://\uff11\uff12\uff17.0.0.1/", "must be a name"),
        ("https://127。0。0。1/", "must be a name"),
        ("https://%31%32%37.0.0.1/", "must be a name|not a number|not a valid name"),
        ("https://exam%70le.com/", "not a valid name"),
        ("https://a..b.example/", "not a valid name"),
        ("https://-a.example/", "not a valid name"),
        ("https://" + "a" * 64 + ".example/", "not a valid name"),
        ("https://" + "a." * 130 + "example/", "no host, or too long"),
        ("https://ex*mple.com/", "not a valid name"),
        ("https://localhost/", "public name"),
        ("https://LOCALHOST./", "public name"),
        ("https://a.localhost/", "public name"),
        ("https://redis/", "public name"),
        ("https://metadata.google.internal/", "public name"),
        ("https://printer.local/", "public name"),
        ("https://example.com/" + "x" * 2048, "longer than 2048"),
    ],
)
def test_a_bad_url_is_refused_with_a_reason(url: str, message: str) -> None:
    with pytest.raises(UrlRefusedError, match=message):
        check_url(url)


def test_settings_widen_what_may_be_registered() -> None:
    assert check_url("http://example.com/x", allow_http=True) == "http://example.com/x"
    assert check_url("http://127.0.0.1:8080/x", allow_http=True, allow_nets=LOOPBACK) == "http://127.0.0.1:8080/x"
    assert check_url("https://[::1]:8080/x", allow_nets=LOOPBACK) == "https://[::1]:8080/x"
    assert check_url("https://receiver:8080/x", allow_nets=LOOPBACK) == "https://receiver:8080/x"
    assert check_url("https://example.com:22/", allowed_ports=frozenset({22})) == "https://example.com:22/"
    for url, ports in (
        ("https://10.0.0.1/", None),
        ("https://example.com/", frozenset({8443})),
        ("https://[::1%25lo]/", None),
    ):
        with pytest.raises(UrlRefusedError):
            check_url(url, allow_nets=LOOPBACK, allowed_ports=ports)


@given(st.text() | st.text().map("https://".__add__) | st.text().map("https://example.com/".__add__))
def test_any_text_is_either_refused_or_becomes_a_stable_plain_url(url: str) -> None:
    try:
        normal = check_url(url)
    except UrlRefusedError:
        return
    assert normal.isascii()
    assert normal.isprintable()
    assert " " not in normal
    assert check_url(normal) == normal


def test_the_two_lists_of_vectors_do_not_overlap() -> None:
    assert not set(BLOCKED) & set(PUBLIC)
    assert all(first != second for first, second in pairwise(sorted(BLOCKED)))
