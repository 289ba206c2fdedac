"""The work of the backup task: find the newest dump, restore it, check it, and write down what came of it."""

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

from tasks.backups.checks.checks import check_database
from tasks.backups.checks.postgres import inspect_postgres
from tasks.backups.checks.results import Finished, Report
from tasks.backups.checks.sqlite import check_integrity, check_leftovers, inspect_sqlite
from tasks.backups.dumps.file_checks import check_files
from tasks.backups.dumps.search import Dump, DumpFormat, find_dumps, format_of
from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.profile import Profile, find_profile
from tasks.backups.restore.addresses import Address
from tasks.backups.restore.programs import Programs
from tasks.backups.restore.restore import Job, restore
from tasks.backups.restore.scratch_database import drop_leftovers, refuse_live, scratch_database
from tasks.backups.store import Held, LastGood, Lease
from tasks.backups.target_lease import Keeper, Renewer, keeping
from taskyard import Snooze
from taskyard.database.columns import utc_now

log = structlog.stdlib.get_logger(__name__)


class Verified(BaseModel):
    """What one run of the task came to."""

    target: str
    state: str  # passed, failed, or skipped: another run of this target is at it
    run_id: str | None = None  # of the history row
    reason: str | None = None


class Spread(BaseModel):
    """The runs that one task without a target became."""

    runs: dict[str, str]  # target -> run id of its task


class BackupStore(Renewer, Protocol):
    """What the handler needs of SQL; see :class:`tasks.backups.store.BackupStore`."""

    lease_time: timedelta

    def take_lease(self, target: str, holder: str) -> Lease | Held:
        """Take the right to verify a target, or say who has it."""

    def start(self, run_id: UUID, target: str, holder: str, worker: str) -> object:
        """Write the row of a run that begins."""

    def finish(self, run_id: UUID, report: Report) -> Finished:
        """Write what came of the run, and its notice."""

    def last_good(self, target: str) -> LastGood | None:
        """Return the newest run that passed."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the work is done with."""

    store: BackupStore
    profiles: Mapping[str, Profile]
    programs: Programs
    scratch_server: Address | None  # None: BACKUP_EPHEMERAL_DB_URL is not set
    live: Sequence[Address] = ()  # never restored into
    live_files: Sequence[Path] = ()  # SQLite databases in use
    query_timeout: timedelta = timedelta(seconds=15)
    worker: str = field(default="")  # host name


def verify(payload: VerifyBackup, bench: Bench, holder: str) -> Verified:
    """
    Verify the newest backup of one target.

    Runs twice safely: one run per target at a time, each in a database of its own; a run that lost its worker is
    marked and its database dropped by the next one. A bad backup is a result; only what kept us from looking raises.

    Args:
        payload: Names the target.
        bench: Store, profiles, programs, servers.
        holder: Who asks: the same for all executions of one task.

    Raises:
        Snooze: An execution of this same task that lost its worker still has the lease.
        BackupConfigError: A profile, a setting or the scratch server is wrong; trying again cannot help.
        InfrastructureError: The scratch server, a disk or the network failed.
    """
    profile = find_profile(dict(bench.profiles), payload.target or "")
    lease = bench.store.take_lease(profile.target, holder)
    if isinstance(lease, Held):
        return _held(profile.target, lease, holder)
    with keeping(bench.store, lease, bench.store.lease_time.total_seconds()) as keeper:
        run_id = uuid4()
        bench.store.start(run_id, profile.target, holder, bench.worker)
        work = _Work(bench, profile, run_id, keeper, is_new_baseline=payload.is_new_baseline)
        try:
            work.examine()
        except Exception as error:
            work.report.error = str(error) if isinstance(error, _KNOWN) else f"{type(error).__name__}: {error}"
            _finish(bench.store, run_id, work.report)
            raise
        finished = _finish(bench.store, run_id, work.report)
    return Verified(target=profile.target, state=finished.state, run_id=str(run_id), reason=work.report.reason)


def spread(payload: VerifyBackup, profiles: Mapping[str, Profile], enqueue: Callable[[VerifyBackup], str]) -> Spread:
    """
    Enqueue a run for each target.

    Runs twice safely: a target that is being verified is not verified a second time at once.
    """
    return Spread(runs={name: enqueue(payload.model_copy(update={"target": name})) for name in sorted(profiles)})


_KNOWN = (InfrastructureError, BackupConfigError)


@dataclass(slots=True)
class _Work:
    """One run under way."""

    bench: Bench
    profile: Profile
    run_id: UUID
    keeper: Keeper
    is_new_baseline: bool
    report: Report = field(default_factory=Report)

    def examine(self) -> None:
        """Go from the files to the restored database; what is damaged is not restored."""
        if self.profile.kind == "postgresql":
            refuse_live(self._server(), self.bench.live)
            drop_leftovers(self._server(), self.profile.target)
        dumps = find_dumps(self.profile)
        if not dumps:
            where = f"{self.profile.folder}/{self.profile.pattern}"
            self.report.add("dump", f"there is none that fits {where}", passed=False)
            return
        last_good = None if self.is_new_baseline else self.bench.store.last_good(self.profile.target)
        if not check_files(dumps, self.profile, last_good, self.report):
            return
        dump_format = self._format(dumps[0])
        if dump_format == "sqlite":
            self._examine_sqlite(dumps[0], last_good)
        elif dump_format is not None:
            self._examine_postgres(dumps[0], dump_format, last_good)

    def _server(self) -> Address:
        if self.bench.scratch_server is None:
            raise BackupConfigError("BACKUP_EPHEMERAL_DB_URL is not set: there is no server to restore on")
        return self.bench.scratch_server

    def _format(self, dump: Dump) -> DumpFormat | None:
        """Return the dump's format; None, with a failed check, when it is not one of the profile's kind."""
        found = format_of(dump)
        self.report.dump_format = found
        if (found == "sqlite") == (self.profile.kind == "sqlite"):
            return found
        what = "not an SQLite database" if self.profile.kind == "sqlite" else "an SQLite database"
        self.report.add("format", f"{dump.name} is {what}; the profile expects {self.profile.kind}", passed=False)
        return None

    def _examine_postgres(self, dump: Dump, dump_format: DumpFormat, last_good: LastGood | None) -> None:
        with scratch_database(self._server(), self.profile.target, self.run_id) as scratch:
            restored = restore(Job(dump, dump_format, scratch, self.profile, self.bench.programs, self.keeper.holds))
            self._ask_for_lease()
            self.report.restore_ms = restored.took_ms
            detail = restored.fault or f"{dump_format} dump restored in {restored.took_ms} ms"
            if not self.report.add("restore", detail, passed=restored.fault is None):
                return
            with inspect_postgres(scratch, self._query_timeout) as inspector:
                check_database(self.profile, inspector, last_good.facts if last_good else None, self.report)
        self._ask_for_lease()

    def _examine_sqlite(self, dump: Dump, last_good: LastGood | None) -> None:
        for live in self.bench.live_files:
            if live.exists() and live.samefile(dump.path):
                raise ScratchRefusedError(f"{dump.name} is a live database, not a backup of one")
        check_leftovers(dump, self.report)
        with ExitStack() as stack:
            patient = stack.enter_context(inspect_sqlite(dump.path, self.profile.restore_timeout))
            if check_integrity(patient, self.report):
                inspector = stack.enter_context(inspect_sqlite(dump.path, self._query_timeout))
                check_database(self.profile, inspector, last_good.facts if last_good else None, self.report)

    @property
    def _query_timeout(self) -> timedelta:
        return self.profile.query_timeout or self.bench.query_timeout

    def _ask_for_lease(self) -> None:
        if not self.keeper.holds():
            raise InfrastructureError("the lease on the target was lost; another run verifies it")


def _held(target: str, held: Held, holder: str) -> Verified:
    if held.holder == holder:  # ourselves, before our worker died
        wait = max(held.until - utc_now(), timedelta(0)) + timedelta(seconds=random.uniform(0.1, 1))  # noqa: S311 - spreads load
        raise Snooze(wait, f"the lease of the lost worker on {target} ends at {held.until:%H:%M:%S} UTC")
    log.info("backup.skipped", target=target, held_by=held.holder)
    return Verified(target=target, state="skipped", reason=f"being verified by {held.holder}")


def _finish(store: BackupStore, run_id: UUID, report: Report) -> Finished:
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
