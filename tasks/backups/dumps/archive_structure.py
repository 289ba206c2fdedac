"""Walk a pg_dump archive to its end: pg_restore takes archives that were cut off, and restores what is left."""

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tasks.backups.dumps.archive_toc import (
    ArchiveDamagedError,
    ArchiveKind,
    ArchiveToc,
    ArchiveUnknownError,
    TocEntry,
    TocReader,
    read_exactly,
    read_toc,
)

TOC_FILE = "toc.dat"
CHUNK = 1 << 20  # bytes
DATA_BLOCK, LARGE_OBJECTS_BLOCK = 1, 3  # in custom archives. Source: pg_backup_custom.c
BLOCK = 512  # bytes, of a tar archive
END_LENGTH = 5  # bytes of a data file's end that are looked at
COPY_END, INSERT_END, NO_INSERTS = (
    b"\\.\n\n\n",
    b";\n\n\n",
    b"\n\n",
)  # Source: pg_dump.c, dumpTableData_copy and _insert
UNREADABLE = {".lz4": "lz4", ".zst": "zstd"}  # compressions of data files that cannot be read here


class DataFile(NamedTuple):
    """The end of one data file."""

    size: int  # bytes, uncompressed
    end: bytes  # at most END_LENGTH


def check_custom(path: Path) -> ArchiveToc:
    """
    Walk all blocks of a custom archive; every object with data must have one.

    Raises:
        ArchiveDamagedError: A block is incomplete, missing or unknown.
        ArchiveUnknownError: The archive's version is not known here.
    """
    with path.open("rb") as file:
        toc = read_toc(file)
        if toc.kind is not ArchiveKind.CUSTOM:
            raise ArchiveDamagedError(f"its header says format {int(toc.kind)}, not custom")
        found = set(_blocks(file, TocReader(file, toc.int_size), path.stat().st_size))
    for entry in toc.entries:
        if entry.has_data and entry.id not in found:
            raise ArchiveDamagedError(f"it has no data for {entry.kind} {entry.schema}.{entry.name}")
    return toc


def check_tar(path: Path) -> ArchiveToc:
    """
    Walk all members of a tar archive, and compare them with its table of contents.

    Raises:
        ArchiveDamagedError: A member or the archive's end is missing or incomplete.
        ArchiveUnknownError: pg_dump did not write it, or its version is not known here.
    """
    with path.open("rb") as file:
        members = dict(_tar_members(file, path.stat().st_size))
        if TOC_FILE not in members:
            raise ArchiveUnknownError(f"a tar archive without {TOC_FILE}: not one of pg_dump's")

        def read(name: str) -> bytes:
            offset, size = members[name]
            file.seek(offset)
            return read_exactly(file, size)

        def find(name: str) -> DataFile | None:
            if name not in members:
                return None
            offset, size = members[name]
            kept = min(size, END_LENGTH)
            file.seek(offset + size - kept)
            return DataFile(size, read_exactly(file, kept))

        toc = read_toc(BytesIO(read(TOC_FILE)))
        _check_data_files(toc, find, lambda name: read(name).decode())
    return toc


def check_directory(path: Path) -> ArchiveToc:
    """
    Compare the files of a directory archive with its table of contents, and look at the end of each.

    Raises:
        ArchiveDamagedError: A data file is missing or incomplete.
        ArchiveUnknownError: The version or a compression is not known here.
    """
    with (path / TOC_FILE).open("rb") as file:
        toc = read_toc(file)
        if file.read(1):
            raise ArchiveDamagedError(f"{TOC_FILE} is longer than its table of contents")
    _check_data_files(toc, lambda name: _directory_file(path, name), lambda name: (path / name).read_text())
    return toc


def _blocks(file: BinaryIO, reader: TocReader, size: int) -> Iterator[int]:
    """Walk the blocks; yield each one's id."""
    while first := file.read(1):
        block = first[0]
        if block not in {DATA_BLOCK, LARGE_OBJECTS_BLOCK}:
            raise ArchiveDamagedError(f"a block of unknown kind {block} at byte {file.tell() - 1}")
        dump_id = reader.number()
        if block == DATA_BLOCK:
            _skip_chunks(file, reader, size)
        else:
            while reader.number():  # the id of a large object; 0: no more
                _skip_chunks(file, reader, size)
        yield dump_id


def _skip_chunks(file: BinaryIO, reader: TocReader, size: int) -> None:
    while length := reader.number():
        if length < 0 or file.seek(length, os.SEEK_CUR) > size:
            raise ArchiveDamagedError("it was cut off: its end is missing")


def _tar_members(file: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Walk to the two blocks of zeros that end the archive; yield name, first byte and size of each member."""
    while True:
        header = read_exactly(file, BLOCK)
        if not any(header):
            if any(read_exactly(file, BLOCK)):
                raise ArchiveDamagedError("its end is not two blocks of zeros")
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ArchiveDamagedError(f"a tar header is unreadable at byte {file.tell() - BLOCK}: {error}") from error
        begin = file.tell()
        if file.seek(begin + -(-member.size // BLOCK) * BLOCK) > size:
            raise ArchiveDamagedError(f"it was cut off within {member.name}")
        yield member.name, (begin, member.size)


def _directory_file(folder: Path, name: str) -> DataFile | None:
    """Return the end of a data file, whatever its compression; None: there is none."""
    for suffix, method in UNREADABLE.items():
        if (folder / f"{name}{suffix}").exists():
            raise ArchiveUnknownError(f"data files compressed with {method}; use gzip (pg_dump --compress=gzip)")
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.exists():
        with plain.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_LENGTH))
            return DataFile(size, file.read())
    if not packed.exists():
        return None
    size, end = 0, b""
    try:
        with gzip.open(packed) as stream:
            while chunk := stream.read(CHUNK):
                size, end = size + len(chunk), (end + chunk)[-END_LENGTH:]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ArchiveDamagedError(f"{packed.name}: {error}") from error
    return DataFile(size, end)


def _check_data_files(toc: ArchiveToc, find: Callable[[str], DataFile | None], read_text: Callable[[str], str]) -> None:
    for entry in toc.entries:
        if not entry.has_data:
            continue
        if not entry.file_name or "/" in entry.file_name:
            raise ArchiveDamagedError(f"{entry.kind} {entry.name} names the data file {entry.file_name!r}")
        if entry.kind == "BLOBS":
            _check_large_objects(entry, find, read_text)
            continue
        found = find(entry.file_name)
        fault = "is missing" if found is None else "was cut off"
        if found is None or not _is_complete(found):
            raise ArchiveDamagedError(f"{entry.file_name}, the data of {entry.schema}.{entry.name}, {fault}")


def _check_large_objects(
    entry: TocEntry, find: Callable[[str], DataFile | None], read_text: Callable[[str], str]
) -> None:
    """Check that each large object of a list has its file; nothing marks the end of its data."""
    names = (entry.file_name, f"blobs_{entry.id}.toc", "blobs.toc")  # tar archives name a file that they do not have
    listing = next((name for name in names if find(name) is not None), None)
    if listing is None:
        raise ArchiveDamagedError(f"{names[1]}, a list of large objects, is missing")
    for line in read_text(listing).splitlines():
        name = line.partition(" ")[2]
        if not name or "/" in name or find(name) is None:
            raise ArchiveDamagedError(f"{name or line!r}, a large object, is missing")


def _is_complete(data: DataFile) -> bool:
    return data.end.endswith((COPY_END, INSERT_END)) or (data.end == NO_INSERTS and data.size == len(NO_INSERTS))
