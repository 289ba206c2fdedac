"""SHA-256 of a dump against the list that was written when it was made, in the form of the program sha256sum."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.backups.dumps.dump_search import CHECKSUM_LIST, Dump
from tasks.backups.errors import InfrastructureError

_LINE = re.compile(r"\\?([0-9a-fA-F]{64})(?: [ *](.+))?")


class ManifestError(ValueError):
    """The list is malformed, or does not name the dump."""


@dataclass(frozen=True, slots=True)
class DumpChecksums:
    """The SHA-256 of a dump's files, and one for all of them together."""

    by_name: dict[str, str]  # name below the dump's folder -> 64 hex digits
    whole: str  # of the file; of a directory dump: of its sorted list of sums


def compute(dump: Dump) -> DumpChecksums:
    """
    Read the whole dump and return its sums.

    Raises:
        InfrastructureError: A file cannot be read.
    """
    by_name = {}
    try:
        for path in dump.files:
            with path.open("rb") as file:
                by_name[_name(dump, path)] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InfrastructureError(f"{dump.name} cannot be read: {error.strerror}") from error
    return DumpChecksums(by_name, by_name.get(dump.name) or hashlib.sha256(_text(by_name).encode()).hexdigest())


def read_manifest(dump: Dump) -> dict[str, str] | None:
    """
    Return the sums that the dump must have; None when it has no manifest.

    The manifest is ``<dump>.sha256`` beside it, or the lines that concern it in a ``SHA256SUMS`` of its folder.

    Raises:
        ManifestError: A line is malformed, or none concerns the dump.
        InfrastructureError: The file cannot be read.
    """
    own = dump.path.with_name(f"{dump.name}.sha256")
    listed = dump.path.with_name(CHECKSUM_LIST)
    manifest = own if own.exists() else listed
    if not manifest.exists():
        return None
    try:
        lines = manifest.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InfrastructureError(f"{manifest.name} cannot be read: {error.strerror}") from error
    sums = {}
    for line in lines:
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            raise ManifestError(f"{manifest.name} is malformed")
        name = (found[2] or dump.name).removeprefix("./")
        if name == dump.name or name.startswith(f"{dump.name}/"):
            sums[name] = found[1].lower()
    if not sums:
        raise ManifestError(f"{manifest.name} does not name {dump.name}")
    return sums


def compare(expected: dict[str, str], sums: DumpChecksums) -> str | None:
    """Return what differs, or None."""
    wrong = [name for name, value in expected.items() if sums.by_name.get(name, value) != value]
    if wrong:
        return f"{', '.join(sorted(wrong)[:5])}: not the bytes that were written (SHA-256 differs)"
    if missing := sorted(expected.keys() - sums.by_name.keys()):
        return f"{', '.join(missing[:5])}: named in the manifest, not there"
    if unknown := sorted(sums.by_name.keys() - expected.keys()):
        return f"{', '.join(unknown[:5])}: there, but not named in the manifest"
    return None


def write_manifest(dump: Dump) -> Path:
    """Write ``<dump>.sha256`` beside the dump, as ``sha256sum`` would, and return it."""
    manifest = dump.path.with_name(f"{dump.name}.sha256")
    manifest.write_text(_text(compute(dump).by_name), encoding="utf-8")
    return manifest


def _name(dump: Dump, path: Path) -> str:
    return f"{dump.name}/{path.relative_to(dump.path).as_posix()}" if dump.path.is_dir() else dump.name


def _text(by_name: dict[str, str]) -> str:
    return "".join(f"{value}  {name}\n" for name, value in sorted(by_name.items()))
