"""The dump files of a target: which one is the newest, how old and how large, and whether it still grows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.backups.errors import InfrastructureError
from tasks.backups.profile.schema import BackupProfile

SIDECARS = (".sha256", "-wal", "-shm", "-journal")  # belong to a dump, are none
CHECKSUM_LIST = "SHA256SUMS"
TABLE_OF_CONTENTS = "toc.dat"  # in a directory dump
POLL_INTERVAL = 0.5  # seconds between two looks at a dump that grows


@dataclass(frozen=True, slots=True)
class Dump:
    """One backup as it lies on the disk."""

    path: Path
    taken_at: datetime
    size: int  # bytes, of all files of a directory dump
    changed_at: float  # Unix time of the last change of a file

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
        InfrastructureError: The folder is not there, not mounted perhaps, or cannot be read.
    """
    try:
        next(profile.folder.iterdir(), None)  # a glob is silent about a folder that is missing or locked
        found = [_described(path, profile) for path in profile.folder.glob(profile.pattern) if _is_dump(path)]
    except OSError as error:
        raise InfrastructureError(f"{profile.folder} cannot be read: {error.strerror}") from error
    return sorted((dump for dump in found if dump is not None), key=lambda dump: (dump.taken_at, dump.name))[::-1]


def wait_until_written(dump: Dump, profile: BackupProfile, wanted: Callable[[], bool]) -> Dump:
    """
    Wait until nothing of the dump has changed for the profile's ``stable_for``; return it as it is then.

    Raises:
        InfrastructureError: It still grows after ``stable_within``, is gone, or the run is not wanted any more.
    """
    needed, limit = profile.stable_for.total_seconds(), profile.stable_within.total_seconds()
    begin = changed = time.monotonic()
    if time.time() - dump.changed_at >= needed:
        return dump
    while (now := time.monotonic()) - changed < needed:
        if now - begin > limit:
            raise InfrastructureError(f"{dump.name} is still being written after {profile.stable_within}")
        if not wanted():
            raise InfrastructureError("the lease on the target was lost; another run verifies it")
        time.sleep(min(POLL_INTERVAL, needed))
        before, dump = dump, _described_again(dump, profile)
        if (before.size, before.changed_at) != (dump.size, dump.changed_at):
            changed = time.monotonic()
    return dump


def _is_dump(path: Path) -> bool:
    if path.name.endswith(SIDECARS) or path.name == CHECKSUM_LIST:
        return False
    return path.is_file() or (path / TABLE_OF_CONTENTS).is_file()


def _described(path: Path, profile: BackupProfile) -> Dump | None:
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
    return Dump(path, taken_at, sum(fact.st_size for fact in facts), max(fact.st_mtime for fact in facts))


def _described_again(dump: Dump, profile: BackupProfile) -> Dump:
    try:
        found = _described(dump.path, profile)
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"{dump.name} went away: {error}") from error
    return found or dump
