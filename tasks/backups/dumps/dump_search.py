"""The dump files of a target: which one is the newest, of which format, how old and how large."""

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, cast

from tasks.backups.errors import InfrastructureError
from tasks.backups.profile.schema import BackupProfile

type DumpFormat = Literal["custom", "directory", "tar", "plain", "sqlite"]

SIDECARS = (".sha256", "-wal", "-shm", "-journal")  # belong to a dump, are none
CHECKSUM_LIST = "SHA256SUMS"
TABLE_OF_CONTENTS = "toc.dat"  # in a directory dump
GZIP_MAGIC = b"\x1f\x8b"
SQLITE_MAGIC = b"SQLite format 3\x00"  # Source: SQLite's file format, 1.3
CUSTOM_MAGIC = b"PGDMP"
TAR_MAGIC = (b"ustar", 257)  # and its offset


@dataclass(frozen=True, slots=True)
class Dump:
    """One backup as it lies on the disk."""

    path: Path
    taken_at: datetime
    size: int  # bytes, of all files of a directory dump

    @property
    def name(self) -> str:
        """Its name without the folder."""
        return self.path.name

    @property
    def files(self) -> list[Path]:
        """Its files, sorted; one, but for a directory dump."""
        return sorted(file for file in self.path.rglob("*") if file.is_file()) if self.path.is_dir() else [self.path]


def find_dumps(profile: BackupProfile) -> list[Dump]:
    """
    Return the target's dumps, newest first; empty when none fits the pattern.

    Raises:
        InfrastructureError: The folder cannot be read.
    """
    try:
        if not profile.folder.is_dir():
            return []
        found = [_dump(path, profile) for path in profile.folder.glob(profile.pattern) if _is_dump(path)]
    except OSError as error:
        raise InfrastructureError(f"{profile.folder} cannot be read: {error.strerror}") from error
    return sorted((dump for dump in found if dump is not None), key=lambda dump: (dump.taken_at, dump.name))[::-1]


def format_of(dump: Dump) -> DumpFormat:
    """
    Return the format by the dump's first bytes; what is nothing else is plain SQL.

    Raises:
        InfrastructureError: It cannot be read.
    """
    if dump.path.is_dir():
        return "directory"
    try:
        with dump.path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InfrastructureError(f"{dump.name} cannot be read: {error.strerror}") from error
    if head.startswith(CUSTOM_MAGIC):
        return "custom"
    if head.startswith(SQLITE_MAGIC):
        return "sqlite"
    magic, offset = TAR_MAGIC
    return "tar" if head[offset : offset + len(magic)] == magic else "plain"


def open_plain(path: Path) -> BinaryIO:
    """Open a plain dump for reading, unpacked if it is packed with gzip; a truncated one raises EOFError at its end."""
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast("BinaryIO", gzip.GzipFile(path, "rb")) if is_packed else path.open("rb")


def _is_dump(path: Path) -> bool:
    if path.name.endswith(SIDECARS) or path.name == CHECKSUM_LIST:
        return False
    return path.is_file() or (path / TABLE_OF_CONTENTS).is_file()


def _dump(path: Path, profile: BackupProfile) -> Dump | None:
    """Describe a path; None when its name does not say its time although it should."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    facts = [file.stat() for file in files]
    if profile.name_time is None:
        taken_at = datetime.fromtimestamp(max(fact.st_mtime for fact in facts), UTC)
    else:
        try:
            taken_at = datetime.strptime(path.name, profile.name_time).replace(tzinfo=UTC)
        except ValueError:
            return None
    return Dump(path, taken_at, sum(fact.st_size for fact in facts))
