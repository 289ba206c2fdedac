"""The backup task: one line of work, and the dependencies that it gives its handler."""

import socket
from datetime import timedelta
from pathlib import Path

from celery import current_task
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config.queues import BACKUPS
from config.settings import BackupSettings
from tasks.backups import handlers
from tasks.backups.dependencies import VerifyDependencies
from tasks.backups.errors import BackupConfigError
from tasks.backups.notices import check_notices, make_announcer
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import open_profiles
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.server_address import ServerAddress, parse_address
from tasks.backups.store import BackupStore
from taskyard import Exponential, Policy, before_work, emit, task
from taskyard.database.engine import open_session
from taskyard.parent_death_signal import tied_to_parent
from taskyard.settings import SettingsError, current_settings

# A profile's restore takes 4 hours at most; the hard limit is for a worker that hangs.
VERIFICATION = Policy(
    max_attempts=3,
    backoff=Exponential(base=timedelta(minutes=1), cap=timedelta(minutes=30)),
    soft_limit=timedelta(hours=4, minutes=50),
    hard_limit=timedelta(hours=5),
)


@task("backups.verify", VerifyBackup, queue=BACKUPS, policy=VERIFICATION)
def verify(payload: VerifyBackup) -> handlers.VerificationResult | handlers.EnqueuedVerifications:
    """Verify the newest backup of one target, or enqueue that for each; see :mod:`tasks.backups.handlers`."""
    dependencies = open_dependencies(current_settings(BackupSettings))
    if payload.target is None:
        return handlers.enqueue_all(payload, dependencies.profiles, enqueue)
    return handlers.verify(payload, dependencies, holder=str(current_task.request.id))


def enqueue(payload: VerifyBackup) -> str:
    """Enqueue a run unless one of the same target waits or runs already; return its id."""
    return str(verify.enqueue(payload, dedup_key=f"backup:{payload.target}").id)


@before_work(BACKUPS, BackupSettings)
def check_settings(settings: BackupSettings) -> None:
    """
    Check the settings that only change with a restart; dumps and profiles may still appear.

    Raises:
        SettingsError: A URL is malformed, or a folder does not exist.
    """
    for name in ("backup_profiles", "backup_pg_bin"):
        folder: Path | None = getattr(settings, name)
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{name.upper()}: {folder} is not a folder")
    scratch = settings.backup_ephemeral_db_url
    try:
        if scratch is not None:
            parse_address(scratch.get_secret_value(), "BACKUP_EPHEMERAL_DB_URL")
        _live_servers(settings)
        _live_files(settings)
        check_notices(settings, current_settings())
    except BackupConfigError as error:
        raise SettingsError(str(error)) from error


def open_dependencies(settings: BackupSettings) -> VerifyDependencies:
    """
    Return what a verification works with; profiles are read for each run, so that a change needs no restart.

    Raises:
        BackupConfigError: A profile or a setting is missing or wrong.
    """
    profiles = open_profiles(settings)
    scratch = settings.backup_ephemeral_db_url
    return VerifyDependencies(
        store=BackupStore(
            open_session, make_announcer(settings, current_settings(), profiles, emit), settings.backup_lease
        ),
        profiles=profiles,
        programs=PostgresPrograms(settings.backup_pg_bin, tied_to_parent()),
        scratch_server=parse_address(scratch.get_secret_value(), "BACKUP_EPHEMERAL_DB_URL") if scratch else None,
        live=_live_servers(settings),
        live_files=_live_files(settings),
        query_timeout=settings.backup_smoke_timeout_ms,
        worker=socket.gethostname(),
    )


def _live_urls(settings: BackupSettings) -> list[tuple[str, str]]:
    extra = settings.backup_live_db_urls
    urls = [url.strip() for url in (extra.get_secret_value() if extra else "").split(",") if url.strip()]
    return [("DATABASE_URL", current_settings().database_url), *(("BACKUP_LIVE_DB_URLS", url) for url in urls)]


def _live_servers(settings: BackupSettings) -> list[ServerAddress]:
    return [parse_address(url, setting) for setting, url in _live_urls(settings) if not url.startswith("sqlite")]


def _live_files(settings: BackupSettings) -> list[Path]:
    return [Path(name) for setting, url in _live_urls(settings) if (name := _file_of(url, setting))]


def _file_of(url: str, setting: str) -> str | None:
    if not url.startswith("sqlite"):
        return None
    try:
        return make_url(url).database
    except ArgumentError:
        raise BackupConfigError(f"{setting}: malformed SQLite URL (sqlite:///file)") from None
