"""Restore a dump into a scratch database; the first error ends it."""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tasks.backups.dumps.archive_toc import ArchiveToc
from tasks.backups.dumps.content import DECOMPRESSION_ERRORS, DumpContent
from tasks.backups.dumps.plain_sql import DatabaseNotChosenError, DumpRefusedError, PlainDumpReader
from tasks.backups.dumps.sql_statements import UnfinishedSqlError
from tasks.backups.errors import BackupConfigError, InfrastructureError
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.faults import RestoreVersions, explain_setup_fault, is_server_fault
from tasks.backups.restore.left_out import LeftOutRules, kept_entries, read_extensions
from tasks.backups.restore.postgres_programs import PostgresPrograms, ProgramExit
from tasks.backups.restore.scratch_database import ScratchDatabase


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The result of a restore."""

    fault: str | None  # None: all of the dump is in
    took_ms: int
    left_out: str = ""  # objects that were not restored
    output: str = ""  # all that the program said


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """A dump to restore, its scratch database and the programs."""

    content: DumpContent
    toc: ArchiveToc | None  # None: a plain dump
    scratch: ScratchDatabase
    profile: BackupProfile
    programs: PostgresPrograms
    wanted: Callable[[], bool]  # polled; when it returns False, the restore is ended


def restore(job: RestoreJob) -> RestoreResult:
    """
    Restore the dump, without owners and rights, within the profile's ``restore_timeout``.

    Raises:
        InfrastructureError: The server, the disk or the network failed.
        BackupConfigError: A program is missing, or this server or these programs cannot restore such a dump.
    """
    return _Restore(job).run()


class _Restore:
    def __init__(self, job: RestoreJob) -> None:
        self._job = job
        self._started = time.monotonic()
        with job.scratch.connect() as connection:
            self._server = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]  # one row
            extensions = read_extensions(connection)
        self._left_out = LeftOutRules(job.profile.leave_out, extensions)
        self._plain = PlainDumpReader(job.profile.database, self._left_out.covers_statement)

    def run(self) -> RestoreResult:
        job = self._job
        with tempfile.TemporaryDirectory(prefix="taskyard-backup-") as private:
            env = job.scratch.server.environment(job.scratch.name, Path(private) / "pgpass")
            try:
                ended = self._run_psql(env) if job.toc is None else self._run_pg_restore(job.toc, env, Path(private))
            except (DumpRefusedError, UnfinishedSqlError, *DECOMPRESSION_ERRORS) as error:
                return self._result(str(error))
            except DatabaseNotChosenError as error:
                raise BackupConfigError(f"{job.content.path.name}: {error}") from error
        if ended.is_late:
            return self._result(f"not restored within its limit of {job.profile.restore_timeout}; it was ended", ended)
        if ended.exit_code == 0 and not ended.fault:
            return self._result(None, ended)
        if not job.wanted():
            raise InfrastructureError("the lease on the target was lost; another run verifies it")
        if is_server_fault(ended.fault) or not _is_there(job.scratch):
            raise InfrastructureError(f"the restore was interrupted: {ended.fault}")
        if reason := explain_setup_fault(ended.fault, self._versions(), self._left_out):
            raise BackupConfigError(reason)
        return self._result(ended.fault, ended)

    def _run_pg_restore(self, toc: ArchiveToc, env: dict[str, str], private: Path) -> ProgramExit:
        """Warnings count as errors, since pg_restore also warns of damage; --create is never given."""
        chosen = private / "objects"
        chosen.write_text(kept_entries(toc, self._left_out))
        options = ["--exit-on-error", "--no-owner", "--no-privileges", "--no-tablespaces", "--no-password"]
        options += [f"--dbname={self._job.scratch.name}", f"--use-list={chosen}"]
        if self._job.profile.restore_jobs > 1:
            options.append(f"--jobs={self._job.profile.restore_jobs}")
        command = ["pg_restore", *options, str(self._job.content.path)]
        return self._job.programs.run(command, env, limit=self._limit(), wanted=self._job.wanted)

    def _run_psql(self, env: dict[str, str]) -> ProgramExit:
        """In one transaction, inside which no statement can create or drop a database."""
        options = ["--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        command = ["psql", *options, "--file=-"]
        with closing(self._job.content.open_plain()) as lines:
            feed = self._plain.restorable(lines)
            return self._job.programs.run(command, env, limit=self._limit(), wanted=self._job.wanted, feed=feed)

    def _versions(self) -> RestoreVersions:
        toc, programs = self._job.toc, self._job.programs
        if toc is None:
            return RestoreVersions(
                self._plain.server_version, self._plain.program_version, programs.version("psql"), self._server
            )
        return RestoreVersions(toc.server_version, toc.program_version, programs.version("pg_restore"), self._server)

    def _limit(self) -> float:
        return self._job.profile.restore_timeout.total_seconds()

    def _result(self, fault: str | None, ended: ProgramExit | None = None) -> RestoreResult:
        took = round((time.monotonic() - self._started) * 1000)
        return RestoreResult(fault, took, self._left_out.describe(), ended.output if ended else "")


def _is_there(scratch: ScratchDatabase) -> bool:
    try:
        scratch.connect().close()
    except (InfrastructureError, psycopg.Error):
        return False
    return True
