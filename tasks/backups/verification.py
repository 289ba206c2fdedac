"""One verification under way: from the files to the checks of the restored database."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from tasks.backups.checks.database_checks import check_database
from tasks.backups.checks.postgres_inspector import inspect_postgres
from tasks.backups.checks.sqlite_inspector import check_integrity, check_leftovers, inspect_sqlite
from tasks.backups.checks.verification_report import VerificationReport
from tasks.backups.dependencies import VerifyDependencies
from tasks.backups.dumps.archive_toc import ArchiveDamagedError, ArchiveToc, ArchiveUnknownError
from tasks.backups.dumps.content import DECOMPRESSION_ERRORS, DumpContent, UnknownFormatError, read_content
from tasks.backups.dumps.dump_search import Dump, find_dumps, wait_until_written
from tasks.backups.dumps.file_checks import check_files
from tasks.backups.errors import BackupConfigError, InfrastructureError, ScratchRefusedError
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.dump_restore import RestoreJob, restore
from tasks.backups.restore.scratch_database import (
    ScratchDatabase,
    drop_leftovers,
    kept_name,
    refuse_live,
    scratch_database,
)
from tasks.backups.restore.server_address import ServerAddress
from tasks.backups.store import LastGoodRun
from tasks.backups.target_lease import LeaseGuard

# Checks that say that the dump itself is broken; the one before is then worth a look.
BROKEN = {"size", "checksum", "format", "structure", "restore", "integrity_check"}


@dataclass(slots=True)
class Verification:
    """One run."""

    dependencies: VerifyDependencies
    profile: BackupProfile
    run_id: UUID
    guard: LeaseGuard
    is_new_baseline: bool
    report: VerificationReport = field(default_factory=VerificationReport)

    def run(self) -> None:
        """
        Check the files, then restore and check the database; a damaged dump is not restored.

        When the newest dump is broken, the one before is verified as well, and the report says what it is worth.

        Raises:
            BackupConfigError: A setting, a program or the scratch server does not fit; the format is not known.
            InfrastructureError: A server, a disk or the network failed, or the dump still grows.
        """
        if self.profile.kind == "postgresql":
            refuse_live(self._server(), self.dependencies.live)
            drop_leftovers(self._server(), self.profile.target)
        dumps = find_dumps(self.profile)
        if not dumps:
            where = f"{self.profile.folder}/{self.profile.pattern}"
            self.report.add("dump", f"there is none that fits {where}", passed=False)
            return
        dumps[0] = wait_until_written(dumps[0], self.profile, self.guard.holds)
        last_good = None if self.is_new_baseline else self.dependencies.store.last_good(self.profile.target)
        self._verify(dumps, last_good, self.report)
        if len(dumps) > 1 and any(check.name in BROKEN for check in self.report.failures):
            self._verify_dump_before(dumps[1:], last_good)

    def _verify_dump_before(self, dumps: Sequence[Dump], last_good: LastGoodRun | None) -> None:
        report = VerificationReport()
        try:
            self._verify(dumps, last_good, report)
        except (BackupConfigError, InfrastructureError) as error:
            self.report.add("dump before", f"{dumps[0].name} could not be verified: {error}", passed=False)
            return
        faults = [f"{check.name}: {check.detail}" for check in report.failures if check.name != "age"]
        when = f"{dumps[0].name} of {dumps[0].taken_at:%Y-%m-%d %H:%M} UTC"
        self.report.add(
            "dump before", f"{when} fails too: {'; '.join(faults)}" if faults else f"{when} is good", passed=not faults
        )

    def _verify(self, dumps: Sequence[Dump], last_good: LastGoodRun | None, report: VerificationReport) -> None:
        """Verify the first of the dumps."""
        if not check_files(dumps, self.profile, last_good, report):
            return
        dump = dumps[0]
        with tempfile.TemporaryDirectory(prefix="taskyard-dump-") as private, _reading(dump, report):
            content = read_content(dump, Path(private))
            report.dump_format = content.format
            if (content.format == "sqlite") != (self.profile.kind == "sqlite"):
                what = "not an SQLite database" if self.profile.kind == "sqlite" else "an SQLite database"
                detail = f"{dump.name} is {what}; the profile expects {self.profile.kind}"
                report.add("format", detail, passed=False)
                return
            toc = content.check_structure()
            if toc is not None:
                report.add("structure", f"{len(toc.entries)} objects, all data complete", passed=True)
            if content.format == "sqlite":
                self._verify_sqlite(dump, content, last_good, report)
            else:
                self._verify_postgres(content, toc, last_good, report)

    def _server(self) -> ServerAddress:
        if self.dependencies.scratch_server is None:
            raise BackupConfigError("BACKUP_EPHEMERAL_DB_URL is not set: there is no server to restore on")
        return self.dependencies.scratch_server

    def _verify_postgres(
        self, content: DumpContent, toc: ArchiveToc | None, last_good: LastGoodRun | None, report: VerificationReport
    ) -> None:
        def tell(name: str, reason: str) -> None:
            report.add(
                "scratch database", f"{name} could not be dropped ({reason}); the next run drops it", passed=True
            )

        run_id = self.run_id if report is self.report else uuid4()
        with scratch_database(
            self._server(), self.profile.target, run_id, template=self.profile.template, on_left=tell
        ) as scratch:
            self._fill_and_check(scratch, content, toc, last_good, report)
            if self.dependencies.keeps_failed and report.state != "passed":
                scratch.is_kept = True
                report.add("scratch database", f"kept as {kept_name(scratch.name)}; drop it by hand", passed=True)
        self._require_lease()

    def _fill_and_check(
        self,
        scratch: ScratchDatabase,
        content: DumpContent,
        toc: ArchiveToc | None,
        last_good: LastGoodRun | None,
        report: VerificationReport,
    ) -> None:
        job = RestoreJob(content, toc, scratch, self.profile, self.dependencies.programs, self.guard.holds)
        restored = restore(job)
        self.dependencies.show(restored.output)
        self._require_lease()
        report.restore_ms = restored.took_ms
        if restored.left_out:
            report.add("left out", restored.left_out, passed=True)
        detail = restored.fault or f"{content.format} dump restored in {restored.took_ms} ms"
        if report.add("restore", detail, passed=restored.fault is None):
            with inspect_postgres(scratch, self._query_timeout) as inspector:
                check_database(self.profile, inspector, last_good.facts if last_good else None, report)

    def _verify_sqlite(
        self, dump: Dump, content: DumpContent, last_good: LastGoodRun | None, report: VerificationReport
    ) -> None:
        for live in self.dependencies.live_files:
            if live.exists() and live.samefile(dump.path):
                raise ScratchRefusedError(f"{dump.name} is a live database, not a backup of one")
        check_leftovers(dump, report)
        with ExitStack() as stack:
            integrity_inspector = stack.enter_context(inspect_sqlite(content.path, self.profile.restore_timeout))
            if check_integrity(integrity_inspector, report):
                inspector = stack.enter_context(inspect_sqlite(content.path, self._query_timeout))
                check_database(self.profile, inspector, last_good.facts if last_good else None, report)

    @property
    def _query_timeout(self) -> timedelta:
        return self.profile.query_timeout or self.dependencies.query_timeout

    def _require_lease(self) -> None:
        if not self.guard.holds():
            raise InfrastructureError("the lease on the target was lost; another run verifies it")


@contextmanager
def _reading(dump: Dump, report: VerificationReport) -> Iterator[None]:
    """Tell what the dump proves from what we cannot read."""
    try:
        yield
    except (ArchiveDamagedError, *DECOMPRESSION_ERRORS) as error:
        report.add("structure", str(error) or "it was cut off", passed=False)
    except ArchiveUnknownError as error:
        raise BackupConfigError(f"{dump.name}: {error}") from error
    except UnknownFormatError as error:
        raise BackupConfigError(str(error)) from error
    except OSError as error:
        raise InfrastructureError(f"{dump.name} cannot be read: {error.strerror}") from error
