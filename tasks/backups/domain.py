"""The manifest of backups: all that the platform needs to know of this folder."""

from pathlib import Path

from config.queues import BACKUPS
from config.settings import BackupSettings
from taskyard import CommandGroup, Domain, Tables

BACKUPS_DOMAIN = Domain(
    "backups",
    tasks=("tasks.backups.tasks",),
    queues=(BACKUPS,),
    settings=BackupSettings,
    timetable="tasks.backups.timetable:entries",
    gauges="tasks.backups.metrics:figures",
    commands=(
        CommandGroup("backups", "tasks.backups.cli", "Backup verification: verify, history, show, profiles, metrics."),
    ),
    tables=Tables("tasks.backups.models", Path(__file__).parent / "migrations"),
)
