"""
Decide which addresses and URLs a webhook may be sent to: the guard against requests into our own network.

Names and spellings prove nothing (``127.1``, ``0x7f000001`` and ``2130706433`` all reach loopback, and a name can
answer differently the next time), so what counts is `check_address` on the concrete address at connect time.
`check_url` is the early, friendly check at registration.

Source: IANA special-purpose address registries (2025-10), IANA multicast registries, Azure "IP address 168.63.129.16".
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from yarl import URL

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

BLOCKED_MESSAGE: Final = "the endpoint's address is not allowed"
MAX_URL_CHARS: Final = 2048

_WEB_PORTS: Final = frozenset({80, 443})
_FIRST_UNPRIVILEGED_PORT: Final = 1024

_DENIED_V4: Final[tuple[IPv4Network, ...]] = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent
        "169.254.0.0/16",  # link-local; metadata services of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Only this block is handed out for use on the Internet. All else is special: ::1, ::a.b.c.d, NAT64 (64:ff9b::/96,
# 64:ff9b:1::/48), discard (100::/64), SRv6 (5f00::/16), unique local, link-local, site-local, multicast.
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_DENIED_V6: Final[tuple[IPv6Network, ...]] = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocols, Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the former 6bone
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = IPv6Network("::/96")

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "lan", "home.arpa")


class BlockedAddressError(OSError):
    """
    The address is one that no webhook may go to. One fixed message: it must not tell what lives where.

    An `OSError`, because it is raised inside socket creation, where HTTP clients expect nothing else.
    """

    def __init__(self) -> None:
        super().__init__(BLOCKED_MESSAGE)


class UrlRefusedError(ValueError):
    """An endpoint's URL cannot be registered; the message says why in words for its owner."""


def is_public(address: Address, allow_nets: Sequence[Network] = ()) -> bool:
    """
    Tell whether a webhook may be sent to `address`: globally routable, or inside one of `allow_nets`.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo, compatible) must pass too, also where the outer
    form is allowed: allowing NAT64's prefix does not open the loopback behind it.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # the same IPv4 host, as a dual-stack socket writes it
    if any(address in net for net in allow_nets):
        inner = _embedded(address)
        return inner is None or is_public(inner, allow_nets)
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _DENIED_V4)
    return address in _GLOBAL_V6 and not any(address in net for net in _DENIED_V6)


def check_address(address: str, allow_nets: Sequence[Network] = ()) -> None:
    """
    Refuse a concrete address (as a resolver or a socket writes it) that is not public.

    Raises:
        BlockedAddressError: It is not public, or not an address at all.
    """
    try:
        concrete = ip_address(address)
    except ValueError as error:
        raise BlockedAddressError from error
    if not is_public(concrete, allow_nets):
        raise BlockedAddressError


def parse_nets(text: str) -> tuple[Network, ...]:
    """
    Read networks in CIDR form, separated by commas; an empty text allows nothing.

    Raises:
        ValueError: An entry is not a network; the message names it.
    """
    return tuple(ip_network(entry.strip()) for entry in text.split(",") if entry.strip())


def check_url(
    url: str,
    *,
    allow_http: bool = False,
    allow_nets: Sequence[Network] = (),
    allowed_ports: frozenset[int] | None = None,
) -> str:
    """
    Check an endpoint's URL at registration and return it in normal form (lower-case host, IDNA, no default port).

    Nothing is resolved. An IP literal, and a name that can only be local, pass only where `allow_nets` is set.

    Args:
        url: As the owner wrote it.
        allow_http: Whether ``http:`` is accepted beside ``https:``.
        allow_nets: Networks that are allowed although they are not public.
        allowed_ports: The ports that may be named; None means 80, 443 and all from 1024 up.

    Raises:
        UrlRefusedError: With the reason.
    """
    parsed = parse_url(url)
    if parsed.scheme == "http" and not allow_http:
        raise UrlRefusedError("the URL must start with https://")
    port = parsed.port or 0
    if not (port in allowed_ports if allowed_ports is not None else _is_usual(port)):
        raise UrlRefusedError(f"the port {port} is not allowed")
    _check_host(parsed.raw_host or "", allow_nets)
    normal = parsed.with_path(parsed.raw_path, encoded=True, keep_query=True)  # an empty path becomes "/"
    return str(normal.with_port(None) if normal.is_default_port() else normal)


def _is_text(url: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in url)  # lone surrogates, which a parser drops


def parse_url(url: str) -> URL:
    """
    Parse a URL that a request may be made of, whatever it points to.

    Raises:
        UrlRefusedError: It is too long, holds spaces, control characters or backslashes, has a user, password or
            fragment, no host, or another scheme than ``http`` and ``https``.
    """
    if len(url) > MAX_URL_CHARS:
        raise UrlRefusedError(f"the URL is longer than {MAX_URL_CHARS} characters")
    # Parsers drop or keep these differently; refused before any parser sees them.
    if any(char <= " " or "\x7f" <= char <= "\xa0" or char == "\\" or char.isspace() for char in url) or not _is_text(
        url
    ):
        raise UrlRefusedError("the URL holds a space, a control character or a backslash")
    if "#" in url:
        raise UrlRefusedError("the URL must not have a fragment (#...)")
    try:
        parsed = URL(url)
    except ValueError as error:
        raise UrlRefusedError("the URL cannot be read") from error
    if parsed.scheme not in {"http", "https"}:
        raise UrlRefusedError("the URL must start with https://")
    if "@" in re.split("[/?]", url.partition("//")[2], maxsplit=1)[0]:
        raise UrlRefusedError("the URL must not hold a user or password")
    if not parsed.raw_host or len(parsed.raw_host) > 253:  # noqa: PLR2004  the longest name that DNS carries
        raise UrlRefusedError("the URL has no host, or too long a one")
    return parsed


def _is_usual(port: int) -> bool:
    return port in _WEB_PORTS or port >= _FIRST_UNPRIVILEGED_PORT


def _check_host(host: str, allow_nets: Sequence[Network]) -> None:
    try:
        literal = ip_address(host)
    except ValueError:
        _check_name(host.removesuffix("."), allow_nets)
        return
    if isinstance(literal, IPv6Address) and literal.scope_id:
        raise UrlRefusedError("the URL's host must not name a network interface")
    if not any(literal in net for net in allow_nets) or not is_public(literal, allow_nets):
        raise UrlRefusedError("the URL's host must be a name, not an IP address")


def _check_name(name: str, allow_nets: Sequence[Network]) -> None:
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # what resolvers read as an IPv4 address in an unusual spelling
        raise UrlRefusedError("the URL's host must be a name, not a number")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlRefusedError("the URL's host is not a valid name")
    is_local = len(labels) == 1 or any(name.endswith("." + suffix) for suffix in _LOCAL_NAMES)
    if is_local and not allow_nets:
        raise UrlRefusedError("the URL's host must be a public name")


def _embedded(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.sixtofour
