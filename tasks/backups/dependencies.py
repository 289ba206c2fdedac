"""What a verification works with: the store, profiles, programs and servers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID

from tasks.backups.checks.verification_report import FinishedVerification, VerificationReport
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.server_address import ServerAddress
from tasks.backups.store import LastGoodRun, LeaseRefusal, TargetLease
from tasks.backups.target_lease import LeaseRenewer


class BackupBooks(LeaseRenewer, Protocol):
    """What the handler needs of SQL; see :class:`tasks.backups.store.BackupStore`."""

    lease_time: timedelta

    def take_lease(self, target: str, holder: str) -> TargetLease | LeaseRefusal:
        """Take the lease on a target, or say who holds it."""

    def start(self, run_id: UUID, target: str, holder: str, worker: str) -> object:
        """Insert the row of a run that starts."""

    def finish(self, run_id: UUID, report: VerificationReport) -> FinishedVerification:
        """Record the result of the run, and its notice."""

    def last_good(self, target: str) -> LastGoodRun | None:
        """Return the newest run that passed."""


@dataclass(frozen=True, slots=True)
class VerifyDependencies:
    """Everything that a verification works with."""

    store: BackupBooks
    profiles: Mapping[str, BackupProfile]
    programs: PostgresPrograms
    scratch_server: ServerAddress | None  # None: BACKUP_EPHEMERAL_DB_URL is not set
    live: Sequence[ServerAddress] = ()  # never restored into
    live_files: Sequence[Path] = ()  # SQLite databases in use
    query_timeout: timedelta = timedelta(seconds=15)
    worker: str = ""  # host name
    keeps_failed: bool = False  # a scratch database whose checks failed stays, under another name
    show: Callable[[str], None] = field(default=lambda _text: None)  # told what an operator at a terminal wants to see
