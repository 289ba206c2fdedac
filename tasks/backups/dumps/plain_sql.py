"""Plain SQL dumps on their way to psql: checked to be whole, and stripped of what does not concern the data."""

import re
from collections.abc import Iterable, Iterator
from secrets import token_hex

END_MARK = b"-- PostgreSQL database dump complete"  # pg_dump's last words
_COPY = re.compile(rb"COPY .* FROM stdin;\s*$")
_OWNER = re.compile(rb"ALTER [A-Z ]+ .* OWNER TO .*;\s*$")
_RIGHTS = re.compile(rb"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .*;\s*$")
_DATABASE = re.compile(rb"(CREATE|DROP|ALTER) DATABASE |\\connect |\\c ")
_RESTRICTION = re.compile(rb"\\(un)?restrict \S+\s*$")
_TAIL = 400  # bytes from the end within which the end mark stands


class DumpRefusedError(ValueError):
    """The dump is cut off, or wants to leave its database."""


def statements(lines: Iterable[bytes]) -> Iterator[bytes]:
    r"""
    Give a dump's lines to psql, without owners and rights: their roles need not exist on a scratch server.

    The first line forbids psql every command of its own (``\connect``, ``\!``, ...): what follows is SQL or an error.

    Raises:
        DumpRefusedError: It creates, drops or enters databases, or its end is missing.
        EOFError: It is packed and cut off.
    """
    yield f"\\restrict {token_hex(16)}\n".encode()
    tail = b""
    in_rows = False
    for line in lines:
        tail = (tail + line)[-_TAIL:]
        if in_rows:
            in_rows = line.rstrip(b"\r\n") != b"\\."
        elif _DATABASE.match(line):
            raise DumpRefusedError("it was made with --create and would leave its database; dump without it")
        elif _OWNER.match(line) or _RIGHTS.match(line) or _RESTRICTION.match(line):
            continue
        else:
            in_rows = _COPY.match(line) is not None
        yield line
    if END_MARK not in tail:
        raise DumpRefusedError("its end is missing: the dump was cut off")
