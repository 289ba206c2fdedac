"""The backup task: one line of work, and the tools that it hands to its handler."""

import socket
from datetime import timedelta
from pathlib import Path

from celery import current_task
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from config.queues import BACKUPS
from config.settings import BackupSettings
from tasks.backups import handlers
from tasks.backups.errors import BackupConfigError
from tasks.backups.notices import announcer, check_notices
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.catalog import open_profiles
from tasks.backups.restore.addresses import Address, parse_address
from tasks.backups.restore.programs import Programs
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
def verify(payload: VerifyBackup) -> handlers.Verified | handlers.Spread:
    """Verify the newest backup of one target, or enqueue that for each; see :mod:`tasks.backups.handlers`."""
    bench = open_bench(current_settings(BackupSettings))
    if payload.target is None:
        return handlers.spread(payload, bench.profiles, enqueue)
    return handlers.verify(payload, bench, holder=str(current_task.request.id))


def enqueue(payload: VerifyBackup) -> str:
    """Enqueue a run unless one of the same target waits or runs already; return its id."""
    return str(verify.enqueue(payload, dedup_key=f"backup:{payload.target}").id)


@before_work(BACKUPS, BackupSettings)
def check_settings(settings: BackupSettings) -> None:
    """
    Look at what does not change without a restart; dumps and profiles may still come.

    Raises:
        SettingsError: A URL has no meaning, or a folder is not there.
    """
    for name in ("backup_profiles", "backup_pg_bin"):
        folder: Path | None = getattr(settings, name)
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{name.upper()}: {folder} is no folder")
    scratch = settings.backup_ephemeral_db_url
    try:
        if scratch is not None:
            parse_address(scratch.get_secret_value(), "BACKUP_EPHEMERAL_DB_URL")
        _live_servers(settings)
        _live_files(settings)
        check_notices(settings, current_settings())
    except BackupConfigError as error:
        raise SettingsError(str(error)) from error


def open_bench(settings: BackupSettings) -> handlers.Bench:
    """
    Return what the work is done with, read anew for each run: profiles change without a restart.

    Raises:
        BackupConfigError: A profile or a setting is missing or wrong.
    """
    profiles = open_profiles(settings)
    scratch = settings.backup_ephemeral_db_url
    return handlers.Bench(
        store=BackupStore(open_session, announcer(settings, current_settings(), profiles, emit), settings.backup_lease),
        profiles=profiles,
        programs=Programs(settings.backup_pg_bin, tied_to_parent()),
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


def _live_servers(settings: BackupSettings) -> list[Address]:
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
