"""Where profiles come from: the folder of BACKUP_PROFILES, and the older setting BACKUP_DUMP_PATH."""

import glob
import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from config.settings import BackupSettings
from tasks.backups.errors import BackupConfigError, UnknownTargetError
from tasks.backups.profile.schema import BackupProfile, DefaultTableRules

DEFAULT_TARGET = "default"


def open_profiles(settings: BackupSettings) -> dict[str, BackupProfile]:
    """
    Return all profiles by target.

    ``BACKUP_DUMP_PATH`` alone makes the profile ``default``: the dump is restored, at least one table must hold rows,
    and every table is compared with the last good run.

    Raises:
        BackupConfigError: Neither setting is there, or a profile is wrong.
    """
    profiles = load_profiles(settings.backup_profiles) if settings.backup_profiles else {}
    if settings.backup_dump_path:
        profiles.setdefault(DEFAULT_TARGET, profile_of_path(settings.backup_dump_path))
    if not profiles:
        raise BackupConfigError("set BACKUP_PROFILES (a folder of *.toml) or BACKUP_DUMP_PATH (a dump, or a pattern)")
    return profiles


def load_profiles(folder: Path) -> dict[str, BackupProfile]:
    """
    Read every ``*.toml`` of a folder; the file's name is the target's.

    Raises:
        BackupConfigError: There is no such folder or no profile in it, or a profile is wrong; one line per fault.
    """
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise BackupConfigError(f"BACKUP_PROFILES: no *.toml in {folder}")
    profiles: dict[str, BackupProfile] = {}
    faults: list[str] = []
    for file in files:
        try:
            profiles[file.stem] = load_profile(file)
        except BackupConfigError as error:
            faults.append(str(error))
    if faults:
        raise BackupConfigError("\n".join(faults))
    return profiles


def load_profile(file: Path) -> BackupProfile:
    """
    Read one profile.

    Raises:
        BackupConfigError: It cannot be read, is not TOML, or a value is wrong; one line per fault, with its place.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BackupConfigError(f"{file.name}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BackupConfigError(f"{file.name}: not TOML: {error}") from error
    if "target" in values:
        raise BackupConfigError(f"{file.name}: target: the file's name says it already")
    try:
        profile = TypeAdapter(BackupProfile).validate_python({**values, "target": file.stem})
    except ValidationError as error:
        raise BackupConfigError("\n".join(f"{file.name}: {line}" for line in _faults(error))) from None
    return profile.model_copy(update={"folder": (file.parent / profile.folder).absolute()})


def find_profile(profiles: dict[str, BackupProfile], target: str) -> BackupProfile:
    """
    Return the profile of a target.

    Raises:
        UnknownTargetError: There is none.
    """
    if target not in profiles:
        raise UnknownTargetError(f"no backup profile {target!r}; known: {', '.join(sorted(profiles)) or 'none'}")
    return profiles[target]


def profile_of_path(path: str) -> BackupProfile:
    """Return the profile for a dump, a folder of dumps or a pattern such as ``/backups/*.dump``."""
    place = Path(path)
    if place.is_dir() and not (place / "toc.dat").exists():
        folder, pattern = place, "*"
    elif glob.has_magic(place.name):
        folder, pattern = place.parent, place.name
    else:
        folder, pattern = place.parent, glob.escape(place.name)
    return BackupProfile(
        target=DEFAULT_TARGET,
        kind="postgresql",
        folder=folder.absolute(),
        pattern=pattern,
        manifest="if_present",
        every_table=DefaultTableRules(),
    )


def _faults(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False):
        place = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return lines
