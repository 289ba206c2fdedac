"""The work of the backup task: find the newest dump, restore it, check it, record the result."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import structlog
from pydantic import BaseModel

from tasks.backups.checks.database_checks import check_database
from tasks.backups.checks.postgres_inspector import inspect_postgres
from tasks.backups.checks.sqlite_inspector import check_integrity, check_leftovers, inspect_sqlite
from tasks.backups.checks.verification_report import FinishedVerification, VerificationReport
from tasks.backups.dumps.dump_search import Dump, DumpFormat, find_dumps, format_of
from tasks.backups.dumps.file_checks import check_files
from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import find_profile
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.dump_restore import RestoreJob, restore
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.scratch_database import drop_leftovers, refuse_live, scratch_database
from tasks.backups.restore.server_address import ServerAddress
from tasks.backups.store import LastGoodRun, LeaseRefusal, TargetLease
from tasks.backups.target_lease import LeaseGuard, LeaseRenewer, renewing_lease
from taskyard.database.columns import utc_now
from taskyard.tasks.errors import Snooze

log = structlog.stdlib.get_logger(__name__)


class VerificationResult(BaseModel):
    """The result of one verification task."""

    target: str
    state: str  # passed, failed, or skipped: another run is verifying this target
    run_id: str | None = None  # of the history row
    reason: str | None = None


class EnqueuedVerifications(BaseModel):
    """The runs that one task without a target enqueued."""

    runs: dict[str, str]  # target -> run id of its task


class BackupStore(LeaseRenewer, Protocol):
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

    store: BackupStore
    profiles: Mapping[str, BackupProfile]
    programs: PostgresPrograms
    scratch_server: ServerAddress | None  # None: BACKUP_EPHEMERAL_DB_URL is not set
    live: Sequence[ServerAddress] = ()  # never restored into
    live_files: Sequence[Path] = ()  # SQLite databases in use
    query_timeout: timedelta = timedelta(seconds=15)
    worker: str = field(default="")  # host name


def verify(payload: VerifyBackup, dependencies: VerifyDependencies, holder: str) -> VerificationResult:
    """
    Verify the newest backup of one target.

    Runs twice safely: one run per target at a time, each in a database of its own; a run that lost its worker is
    marked and its database dropped by the next one. A bad backup is a result; only a failure to verify it raises.

    Args:
        payload: Names the target.
        dependencies: Store, profiles, programs, servers.
        holder: Identifies the caller; the same for all executions of one task.

    Raises:
        Snooze: An execution of this same task that lost its worker still has the lease.
        BackupConfigError: A profile, a setting or the scratch server is wrong; trying again cannot help.
        InfrastructureError: The scratch server, a disk or the network failed.
    """
    profile = find_profile(dict(dependencies.profiles), payload.target or "")
    lease = dependencies.store.take_lease(profile.target, holder)
    if isinstance(lease, LeaseRefusal):
        return _lease_refused(profile.target, lease, holder)
    with renewing_lease(dependencies.store, lease, dependencies.store.lease_time.total_seconds()) as guard:
        run_id = uuid4()
        dependencies.store.start(run_id, profile.target, holder, dependencies.worker)
        work = _Verification(dependencies, profile, run_id, guard, is_new_baseline=payload.is_new_baseline)
        try:
            work.run()
        except Exception as error:
            work.report.error = str(error) if isinstance(error, _KNOWN) else f"{type(error).__name__}: {error}"
            _finish(dependencies.store, run_id, work.report)
            raise
        finished = _finish(dependencies.store, run_id, work.report)
    return VerificationResult(
        target=profile.target, state=finished.state, run_id=str(run_id), reason=work.report.reason
    )


def enqueue_all(
    payload: VerifyBackup, profiles: Mapping[str, BackupProfile], enqueue: Callable[[VerifyBackup], str]
) -> EnqueuedVerifications:
    """
    Enqueue a run for each target.

    Runs twice safely: a target that is being verified is not verified a second time at once.
    """
    return EnqueuedVerifications(
        runs={name: enqueue(payload.model_copy(update={"target": name})) for name in sorted(profiles)}
    )


_KNOWN = (InfrastructureError, BackupConfigError)


@dataclass(slots=True)
class _Verification:
    """One run under way."""

    dependencies: VerifyDependencies
    profile: BackupProfile
    run_id: UUID
    guard: LeaseGuard
    is_new_baseline: bool
    report: VerificationReport = field(default_factory=VerificationReport)

    def run(self) -> None:
        """Check the files, then restore and check the database; a damaged dump is not restored."""
        if self.profile.kind == "postgresql":
            refuse_live(self._server(), self.dependencies.live)
            drop_leftovers(self._server(), self.profile.target)
        dumps = find_dumps(self.profile)
        if not dumps:
            where = f"{self.profile.folder}/{self.profile.pattern}"
            self.report.add("dump", f"there is none that fits {where}", passed=False)
            return
        last_good = None if self.is_new_baseline else self.dependencies.store.last_good(self.profile.target)
        if not check_files(dumps, self.profile, last_good, self.report):
            return
        dump_format = self._format(dumps[0])
        if dump_format == "sqlite":
            self._verify_sqlite(dumps[0], last_good)
        elif dump_format is not None:
            self._verify_postgres(dumps[0], dump_format, last_good)

    def _server(self) -> ServerAddress:
        if self.dependencies.scratch_server is None:
            raise BackupConfigError("BACKUP_EPHEMERAL_DB_URL is not set: there is no server to restore on")
        return self.dependencies.scratch_server

    def _format(self, dump: Dump) -> DumpFormat | None:
        """Return the dump's format; None, with a failed check, when it is not one of the profile's kind."""
        found = format_of(dump)
        self.report.dump_format = found
        if (found == "sqlite") == (self.profile.kind == "sqlite"):
            return found
        what = "not an SQLite database" if self.profile.kind == "sqlite" else "an SQLite database"
        self.report.add("format", f"{dump.name} is {what}; the profile expects {self.profile.kind}", passed=False)
        return None

    def _verify_postgres(self, dump: Dump, dump_format: DumpFormat, last_good: LastGoodRun | None) -> None:
        with scratch_database(self._server(), self.profile.target, self.run_id) as scratch:
            restored = restore(
                RestoreJob(dump, dump_format, scratch, self.profile, self.dependencies.programs, self.guard.holds)
            )
            self._require_lease()
            self.report.restore_ms = restored.took_ms
            detail = restored.fault or f"{dump_format} dump restored in {restored.took_ms} ms"
            if not self.report.add("restore", detail, passed=restored.fault is None):
                return
            with inspect_postgres(scratch, self._query_timeout) as inspector:
                check_database(self.profile, inspector, last_good.facts if last_good else None, self.report)
        self._require_lease()

    def _verify_sqlite(self, dump: Dump, last_good: LastGoodRun | None) -> None:
        for live in self.dependencies.live_files:
            if live.exists() and live.samefile(dump.path):
                raise ScratchRefusedError(f"{dump.name} is a live database, not a backup of one")
        check_leftovers(dump, self.report)
        with ExitStack() as stack:
            integrity_inspector = stack.enter_context(inspect_sqlite(dump.path, self.profile.restore_timeout))
            if check_integrity(integrity_inspector, self.report):
                inspector = stack.enter_context(inspect_sqlite(dump.path, self._query_timeout))
                check_database(self.profile, inspector, last_good.facts if last_good else None, self.report)

    @property
    def _query_timeout(self) -> timedelta:
        return self.profile.query_timeout or self.dependencies.query_timeout

    def _require_lease(self) -> None:
        if not self.guard.holds():
            raise InfrastructureError("the lease on the target was lost; another run verifies it")


def _lease_refused(target: str, held: LeaseRefusal, holder: str) -> VerificationResult:
    if held.holder == holder:  # this same task, before its worker died
        wait = max(held.until - utc_now(), timedelta(0)) + timedelta(seconds=random.uniform(0.1, 1))  # noqa: S311 - spreads load
        raise Snooze(wait, f"the lease of the lost worker on {target} ends at {held.until:%H:%M:%S} UTC")
    log.info("backup.skipped", target=target, held_by=held.holder)
    return VerificationResult(target=target, state="skipped", reason=f"being verified by {held.holder}")


def _finish(store: BackupStore, run_id: UUID, report: VerificationReport) -> FinishedVerification:
    finished = store.finish(run_id, report)
    log.info(
        "backup.verified",
        target=finished.target,
        run_id=finished.run_id,
        state=finished.state,
        reason=report.reason,
        dump=report.dump,
        checks=len(report.checks),
        failed=len(report.failures),
    )
    return finished
