"""Where profiles come from: the folder of BACKUP_PROFILES, and the older setting BACKUP_DUMP_PATH."""

import glob
from pathlib import Path

from config.settings import BackupSettings
from tasks.backups.errors import BackupConfigError
from tasks.backups.profile.profile import EveryTable, Profile, load_profiles

DEFAULT_TARGET = "default"


def open_profiles(settings: BackupSettings) -> dict[str, Profile]:
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


def profile_of_path(path: str) -> Profile:
    """Return the profile for a dump, a folder of dumps or a pattern such as ``/backups/*.dump``."""
    place = Path(path)
    if place.is_dir() and not (place / "toc.dat").exists():
        folder, pattern = place, "*"
    elif glob.has_magic(place.name):
        folder, pattern = place.parent, place.name
    else:
        folder, pattern = place.parent, glob.escape(place.name)
    return Profile(
        target=DEFAULT_TARGET,
        kind="postgresql",
        folder=folder.absolute(),
        pattern=pattern,
        manifest="if_present",
        every_table=EveryTable(),
    )
