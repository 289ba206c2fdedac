"""Read the table of contents of a pg_dump archive: custom, tar and directory dumps begin with the same structure."""

from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

MAGIC = b"PGDMP"
OLDEST, NEWEST = (1, 12), (1, 16)  # versions of the structure that are known: pg_dump 9.0 to 18
MAX_TEXT = 1 << 30  # bytes of one string; more is damage
# Source: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c (ReadHead, ReadToc) and pg_backup_custom.c (ReadExtraToc).


class ArchiveKind(IntEnum):
    """The number that the header gives each format."""

    CUSTOM = 1
    TAR = 3
    DIRECTORY = 5


class ArchiveDamagedError(ValueError):
    """The archive contradicts its own structure: it was cut off or changed."""


class ArchiveUnknownError(Exception):
    """The archive's version or format is not known here, so nothing can be said about it."""


@dataclass(frozen=True, slots=True)
class TocEntry:
    """One object of the archive."""

    id: int
    kind: str  # such as "TABLE", "TABLE DATA", "EXTENSION"
    schema: str  # empty: none
    name: str
    has_data: bool  # it has a block or a file of its own
    file_name: str  # of its data, in tar and directory archives; empty: none


@dataclass(frozen=True, slots=True)
class ArchiveToc:
    """The header and the objects of an archive."""

    kind: ArchiveKind
    version: tuple[int, int]
    server_version: str  # of the dumped server, such as "15.18"
    program_version: str  # of pg_dump
    int_size: int  # bytes of a number
    entries: tuple[TocEntry, ...]


def read_toc(file: BinaryIO) -> ArchiveToc:
    """
    Read header and objects; the file is then at the first byte of data.

    Raises:
        ArchiveDamagedError: It ends too early, or a value is impossible.
        ArchiveUnknownError: Its version or format is not known here.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise ArchiveDamagedError("it does not begin like an archive of pg_dump")
    version = (_byte(file), _byte(file))
    _byte(file)  # revision
    if not OLDEST <= version <= NEWEST:
        raise ArchiveUnknownError(f"archive version {version[0]}.{version[1]}; known are 1.12 to 1.16 (pg_dump 9.0-18)")
    int_size, offset_size = _byte(file), _byte(file)
    reader = TocReader(file, int_size, offset_size)
    number = _byte(file)
    if number not in set(ArchiveKind):
        raise ArchiveUnknownError(f"archive format {number}")
    kind = ArchiveKind(number)
    if version >= (1, 15):
        _byte(file)  # compression method
    else:
        reader.number()  # compression level
    for _ in range(7):  # when it was made
        reader.number()
    reader.text()  # name of the database
    server_version, program_version = reader.text(), reader.text()
    count = reader.number()
    if count < 0:
        raise ArchiveDamagedError(f"its table of contents has {count} entries")
    entries = tuple(reader.entry(version, kind) for _ in range(count))
    return ArchiveToc(kind, version, server_version, program_version, int_size, entries)


class TocReader:
    """Reads the numbers and strings of an archive."""

    def __init__(self, file: BinaryIO, int_size: int, offset_size: int = 0) -> None:
        """Prepare; both sizes are bytes."""
        self._file, self._int_size, self._offset_size = file, int_size, offset_size

    def number(self) -> int:
        """Read a sign and a number, least significant byte first."""
        data = read_exactly(self._file, 1 + self._int_size)
        value = int.from_bytes(data[1:], "little")
        return -value if data[0] else value

    def text(self) -> str:
        """Read a string; a missing one is empty."""
        return self._optional_text() or ""

    def entry(self, version: tuple[int, int], kind: ArchiveKind) -> TocEntry:
        """Read one object."""
        dump_id, has_data = self.number(), self.number() != 0
        self.text()  # oid of its catalog
        self.text()  # oid
        name, description = self.text(), self.text()
        self.number()  # section
        for _ in range(3):  # definition, drop and copy statement
            self.text()
        schema = self.text()
        self.text()  # tablespace
        if version >= (1, 14):
            self.text()  # access method
        if version >= (1, 16):
            self.number()  # kind of relation
        self.text()  # owner
        self.text()  # has oids
        while self._optional_text() is not None:  # dependencies
            pass
        file_name = ""
        if kind is ArchiveKind.CUSTOM:
            read_exactly(self._file, 1 + self._offset_size)  # state and place of its data
        else:
            file_name = self.text()
        return TocEntry(dump_id, description, schema, name, has_data, file_name)

    def _optional_text(self) -> str | None:
        length = self.number()
        if length < 0:
            return None
        if length > MAX_TEXT:
            raise ArchiveDamagedError(f"a string of {length} bytes in its table of contents")
        return read_exactly(self._file, length).decode(errors="replace")


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """
    Read so many bytes.

    Raises:
        ArchiveDamagedError: There are fewer.
    """
    data = file.read(size)
    if len(data) < size:
        raise ArchiveDamagedError("it was cut off: its end is missing")
    return data


def _byte(file: BinaryIO) -> int:
    return read_exactly(file, 1)[0]
