"""Resolve names and open sockets, refusing every address that is not public."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

from taskyard.webhooks.http.ssrf_policy import Network, check_address

# Name and port -> addresses; blocks, and is called in a thread. Raises `OSError` for a name that has none.
type Lookup = Callable[[str, int], Sequence[str]]

# A name whose servers hang holds one thread for libc's patience, not one per delivery: equal look-ups are merged.
_LOOKUP_THREADS: Final = 64


def system_lookup(host: str, port: int) -> Sequence[str]:
    """
    Ask the operating system for all addresses of `host`.

    Raises:
        OSError: There is none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "not a valid host name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedResolver(AbstractResolver):
    """Refuses a name when any of its addresses is blocked: a mixed answer is an attack, not a mistake."""

    def __init__(self, lookup: Lookup, allow_nets: Sequence[Network]) -> None:
        self._lookup = lookup
        self._allow_nets = allow_nets
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="webhook-dns")

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  aiohttp's signature; we use both families
    ) -> list[ResolveResult]:
        """
        Return all addresses of `host`.

        Raises:
            OSError: The name has no address.
            BlockedAddressError: One of them is not allowed.
        """
        loop = asyncio.get_running_loop()
        addresses = await loop.run_in_executor(self._threads, self._lookup, host, port)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in addresses:
            check_address(address, self._allow_nets)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Give up the threads; one that still waits for a name ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def guarded_socket(allow_nets: Sequence[Network], target: AddrInfoType) -> socket.socket:
    """
    Make the socket for one connection attempt: the last word, also for IP literals, which no resolver sees.

    Raises:
        BlockedAddressError: The address is not allowed.
    """
    family, kind, proto, _, address = target
    check_address(str(address[0]), allow_nets)
    return socket.socket(family, kind, proto)


def tls_context(extra_ca_file: Path | None) -> ssl.SSLContext:
    """
    Return a context that always verifies, speaks TLS 1.2 or newer, and may trust one more authority (PEM).

    Raises:
        OSError: The file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_ca_file is not None:
        context.load_verify_locations(cafile=extra_ca_file)
    return context
