"""When backups are verified."""

from collections.abc import Iterator
from typing import Any

from beat.timetable import VERIFY_BACKUPS
from config.settings import BackupSettings
from tasks.backups.payloads import VerifyBackup
from tasks.backups.tasks import verify
from taskyard.beat import Entry
from taskyard.settings import current_settings


def entries() -> Iterator[Entry[Any]]:
    """The backups of all profiles, where there is one."""
    settings = current_settings(BackupSettings)
    yield Entry(
        "backups.verify",
        verify,
        VerifyBackup(),
        VERIFY_BACKUPS,
        is_enabled=settings.backup_profiles is not None or settings.backup_dump_path is not None,
        needs="BACKUP_PROFILES or BACKUP_DUMP_PATH",
        note="Restores the newest backup of every profile",
    )
