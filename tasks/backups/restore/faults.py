"""Tell what a failed restore proves: a fault of the dump, of this installation, or of the server for the moment."""

import re
from dataclasses import dataclass

from tasks.backups.restore.left_out import LeftOutRules

_VERDICTS = ("pg_restore: ", "psql:")  # anything else comes from the system, and says nothing about the dump
# The server or a disk failed; trying again may help.
_SERVER_FAULTS = (
    "No space left on device",
    "connection to server",
    "could not connect",
    "server closed the connection",
    "terminating connection",
    "the database system is",
    "out of memory",
    "too many clients",
    "remaining connection slots",
)
# The tools or the scratch server do not fit the dump; trying again cannot help.
_SETUP_FAULTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"unsupported version \(",  # of an archive, in its header
        r"unrecognized configuration parameter",
        r"invalid command \\restrict",
        r"(build|installation) (does not support|is without) compression|not built with .* support",
        r"extension \"?.*\"? is not available",
        r"could not open extension control file|could not (access|load) (file|library)",
        r"permission denied|must be (superuser|owner)|Must be superuser",
        r"(role|tablespace|server|language|access method) \".*\" does not exist",
        r"collation .* does not exist|invalid locale|encoding .* does not match|locale provider",
    )
)


@dataclass(frozen=True, slots=True)
class RestoreVersions:
    """Who wrote the dump and who reads it; each such as "18.6", empty if it is not known."""

    dump_server: str
    dump_program: str
    tool: str  # "pg_restore 18.6"
    server: str

    def __str__(self) -> str:
        dump = f"dump of server {self.dump_server or '?'} by pg_dump {self.dump_program or '?'}"
        return f"{dump}, {self.tool}, scratch server {self.server}"

    @property
    def is_server_older(self) -> bool:
        """Whether the scratch server is of an older major version than the dumped one."""
        return 0 < _major(self.server) < _major(self.dump_server)


def is_server_fault(fault: str) -> bool:
    """Return whether the server, a disk or a network failed, so that nothing is known about the dump."""
    return not fault.startswith(_VERDICTS) or any(words in fault for words in _SERVER_FAULTS)


def explain_setup_fault(fault: str, versions: RestoreVersions, left_out: LeftOutRules) -> str | None:
    """Return why this installation cannot restore the dump; None: the dump itself is at fault."""
    if any(pattern.search(fault) for pattern in _SETUP_FAULTS):
        return f"the dump does not fit the scratch server or its tools: {fault} ({versions})"
    if left_out.found and "does not exist" in fault:
        return f"something needs an object that was left out: {fault} (left out: {left_out.describe()}; {versions})"
    if versions.is_server_older:
        return f"the scratch server is older than the dumped one: {fault} ({versions})"
    return None


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0
