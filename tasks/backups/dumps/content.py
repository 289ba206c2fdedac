"""What a dump contains: its format by its first bytes, behind a compression if there is one."""

import bz2
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal, cast

from tasks.backups.dumps.archive_structure import TOC_FILE, check_custom, check_directory, check_tar
from tasks.backups.dumps.archive_toc import MAGIC as CUSTOM_MAGIC
from tasks.backups.dumps.archive_toc import ArchiveToc
from tasks.backups.dumps.dump_search import Dump

type DumpFormat = Literal["custom", "directory", "tar", "plain", "sqlite"]
type Opener = Callable[[Path], IO[bytes]]

SQLITE_MAGIC = b"SQLite format 3\x00"  # Source: SQLite's file format, 1.3
TAR_MAGIC = (b"ustar", 257)  # and its offset
HEAD = 512  # bytes
OPENERS: dict[bytes, Opener] = {
    b"\x1f\x8b": lambda path: cast("IO[bytes]", gzip.GzipFile(path)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
UNSUPPORTED = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}
# What reading a compressed file raises when it was cut off or changed.
DECOMPRESSION_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


class UnknownFormatError(Exception):
    """The format is not known here, so nothing can be said about the dump."""


@dataclass(frozen=True, slots=True)
class DumpContent:
    """A dump ready to be restored."""

    path: Path  # of the dump itself, or of its decompressed copy
    format: DumpFormat
    opener: Opener | None = None  # of a compressed plain dump, which is read as it is

    def open_plain(self) -> BinaryIO:
        """Open a plain dump for reading; one that is compressed and cut off raises at its end."""
        return cast("BinaryIO", self.opener(self.path)) if self.opener else self.path.open("rb")

    def check_structure(self) -> ArchiveToc | None:
        """
        Walk an archive to its end; plain dumps are walked while they are restored, SQLite checks its own files.

        Raises:
            ArchiveDamagedError: It contradicts its own structure.
            ArchiveUnknownError: Its version is not known here.
        """
        walks = {"custom": check_custom, "tar": check_tar, "directory": check_directory}
        walk = walks.get(self.format)
        return walk(self.path) if walk else None


def read_content(dump: Dump, private: Path) -> DumpContent:
    """
    Recognize a dump, and decompress it into the folder ``private`` unless it is plain SQL.

    Raises:
        UnknownFormatError: It is in no format that is known here.
        OSError: It cannot be read, or the folder is full.
        EOFError, zlib.error, lzma.LZMAError: It is compressed, and was cut off or changed; see DECOMPRESSION_ERRORS.
    """
    if dump.path.is_dir():
        if not (dump.path / TOC_FILE).is_file():
            raise UnknownFormatError(f"{dump.name} is a folder without {TOC_FILE}")
        return DumpContent(dump.path, "directory")
    head = _head(dump.path.open("rb"))
    opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return DumpContent(dump.path, _format(dump.name, head))
    found = _format(dump.name, _head(opener(dump.path)))
    if found == "plain":
        return DumpContent(dump.path, "plain", opener)
    copy = private / "dump"
    with opener(dump.path) as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return DumpContent(copy, found)


def _head(file: IO[bytes]) -> bytes:
    with file:
        return file.read(HEAD)


def _format(name: str, head: bytes) -> DumpFormat:
    if head.startswith(CUSTOM_MAGIC):
        return "custom"
    if head.startswith(SQLITE_MAGIC):
        return "sqlite"
    magic, offset = TAR_MAGIC
    if head[offset : offset + len(magic)] == magic:
        return "tar"
    for start, method in UNSUPPORTED.items():
        if head.startswith(start):
            raise UnknownFormatError(f"{name} is packed with {method}, which cannot be read here; gzip, bzip2, xz can")
    if b"\x00" in head:
        raise UnknownFormatError(f"{name} is neither an archive of pg_dump nor SQL nor an SQLite database")
    return "plain"
