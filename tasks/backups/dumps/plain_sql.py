"""Read one database of a plain SQL dump to its end, without owners, rights and what is left out."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from secrets import token_hex

from tasks.backups.dumps.sql_statements import SqlPiece, SqlPieceKind, split_statements

DATABASE_END = b"-- PostgreSQL database dump complete"  # pg_dump's last words
CLUSTER_BEGIN = b"-- PostgreSQL database cluster dump"  # pg_dumpall's first and last ones
CLUSTER_END = b"-- PostgreSQL database cluster dump complete"
MAX_PENDING = 65_536  # bytes of a statement that wait for its end; what is left out is shorter
_CONNECT = re.compile(r"\\c(?:onnect)?\s+(?:-reuse-previous=on\s+)?(?P<name>\S.*?)\s*$")
_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (\d+(?:\.\d+)*)")
_SETTINGS = {"DEFAULT_TABLESPACE", "SESSION"}  # SET SESSION AUTHORIZATION


class DumpRefusedError(ValueError):
    """The dump is cut off, leaves its database, or does not hold the one that is wanted."""


class DatabaseNotChosenError(Exception):
    """The dump holds several databases, and the profile names none."""


@dataclass(slots=True)
class PlainDumpReader:
    """Reads one database of a plain dump, and keeps what the dump says of itself."""

    database: str | None  # of a dump of several; None: the only one
    leaves_out: Callable[[tuple[str, ...]], bool]  # asked with the words of each statement
    server_version: str = ""  # of the dumped server; empty: not read yet
    program_version: str = ""  # of pg_dump
    _section: str | None = None  # the database that was connected to
    _created: set[str] = field(default_factory=set)
    _is_cluster: bool = False
    _has_begun: bool = False  # something else than settings was read of this section
    _last_mark: bytes = b""  # the last one, if no statement came after it
    _was_complete: bool = False

    def restorable(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        r"""
        Yield what psql is given.

        The first line forbids psql every command of its own (``\connect``, ``\!``, ...): the rest is SQL or an error.

        Raises:
            DumpRefusedError: It leaves its database, lacks the one that is wanted, or its end is missing.
            UnfinishedSqlError: It ends within a statement or within rows.
            DatabaseNotChosenError: It holds several databases, and none is named.
        """
        yield f"\\restrict {token_hex(16)}\n".encode()
        pending: list[bytes] = []
        size = 0
        for piece in split_statements(lines):
            if piece.kind is SqlPieceKind.STATEMENT:
                pending.append(piece.text)
                size += len(piece.text)
                if size > MAX_PENDING:
                    yield from self._feed(pending)
                    pending = []
            elif piece.kind is SqlPieceKind.END:
                if size > MAX_PENDING or not self._is_left_out(piece.words):
                    yield from self._feed([*pending, piece.text])
                pending, size = [], 0
            else:
                yield from self._take(piece)
        self._check_end()

    def _take(self, piece: SqlPiece) -> Iterator[bytes]:
        """Take what is not part of a statement."""
        if piece.kind is SqlPieceKind.COPY_DATA:
            yield from self._feed([piece.text])
        elif piece.kind is SqlPieceKind.COMMAND:
            yield from self._obey(piece.text)
        else:
            self._read_mark(piece.text)
            yield piece.text if piece.text.endswith(b"\n") else piece.text + b"\n"

    def _feed(self, texts: list[bytes]) -> Iterator[bytes]:
        if self._is_wanted():
            self._last_mark = b""
            yield from texts

    def _is_wanted(self) -> bool:
        return not self._is_cluster or (self._section is not None and self._section == self.database)

    def _obey(self, command: bytes) -> Iterator[bytes]:
        text = command.decode(errors="replace")
        if text.startswith(("\\restrict ", "\\unrestrict ")):
            return
        found = _CONNECT.match(text)
        if found is None:
            yield from self._feed([command])  # psql refuses it
            return
        name = _plain_name(found["name"])
        if self._is_cluster and self.database is None:
            raise DatabaseNotChosenError(
                "a dump of all databases (pg_dumpall); name one in the profile: database = ..."
            )
        if not self._is_cluster and (name not in self._created or self._section not in {None, name}):
            raise DumpRefusedError(f"it leaves its database for {name!r}")
        self._was_complete |= self._is_wanted() and self._last_mark == DATABASE_END
        self._section, self._has_begun, self._last_mark = name, False, b""

    def _is_left_out(self, words: tuple[str, ...]) -> bool:
        if words[1:2] == ("DATABASE",) and words[0] in {"CREATE", "ALTER", "DROP"} and not self._has_begun:
            if words[0] == "CREATE":
                self._created.add(_plain_name(words[2]))
            return True
        self._has_begun |= words[:1] not in {("SET",), ("SELECT",)}
        if words[:3] in {("COMMENT", "ON", "DATABASE"), ("ALTER", "DEFAULT", "PRIVILEGES")}:
            return True
        if words[:1] in {("GRANT",), ("REVOKE",)} or (words[:1] == ("ALTER",) and words[-3:-1] == ("OWNER", "TO")):
            return True
        if words[:1] == ("SET",) and words[1:2] and words[1] in _SETTINGS:
            return words[1] != "SESSION" or words[2:3] == ("AUTHORIZATION",)
        return self._is_wanted() and self.leaves_out(words)

    def _read_mark(self, text: bytes) -> None:
        line = text.strip()
        if found := _VERSION.match(line):
            version = found[2].decode()
            if found[1].startswith(b"from"):
                self.server_version = version
            else:
                self.program_version = version
        elif line == CLUSTER_BEGIN:
            self._is_cluster = True
        elif line in {DATABASE_END, CLUSTER_END}:
            self._was_complete |= self._is_wanted() and line == DATABASE_END
            self._last_mark = line

    def _check_end(self) -> None:
        if self._last_mark != (CLUSTER_END if self._is_cluster else DATABASE_END):
            raise DumpRefusedError("its end is missing: the dump was cut off")
        if self._is_cluster and not self._was_complete:
            raise DumpRefusedError(f"it holds no database {self.database!r}")
        if self._created and self._section is None:
            raise DumpRefusedError(f"it creates a database ({', '.join(sorted(self._created))}) and does not enter it")


def _plain_name(text: str) -> str:
    """Return a database's name that is written bare, quoted, or in a connection string."""
    found = re.fullmatch(r"\"?dbname='(?P<name>.*)'\"?", text)
    if found:
        return found["name"].replace("\\'", "'").replace("\\\\", "\\")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
