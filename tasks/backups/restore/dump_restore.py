"""Restore a dump into a scratch database; the first error ends it."""

import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path

import psycopg

from tasks.backups.dumps.dump_search import Dump, DumpFormat, open_plain
from tasks.backups.dumps.plain_sql import DumpRefusedError, statements
from tasks.backups.errors import InfrastructureError
from tasks.backups.profile.schema import BackupProfile
from tasks.backups.restore.postgres_programs import PostgresPrograms, ProgramExit
from tasks.backups.restore.scratch_database import ScratchDatabase

_VERDICTS = ("pg_restore: ", "psql:")  # what else there is to read comes from the system, and says nothing of the dump
# Words of faults that are the server's or the disk's and say nothing about the dump.
_SERVER_FAULTS = (
    "No space left on device",
    "connection to server",
    "could not connect",
    "server closed the connection",
    "terminating connection",
    "the database system is",
    "out of memory",
    "too many clients",
    "remaining connection slots",
)


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """The result of a restore."""

    fault: str | None  # None: all of the dump is in
    took_ms: int


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """A dump to restore, its scratch database and the programs."""

    dump: Dump
    dump_format: DumpFormat
    scratch: ScratchDatabase
    profile: BackupProfile
    programs: PostgresPrograms
    wanted: Callable[[], bool]  # polled; when it returns False, the restore is ended


def restore(job: RestoreJob) -> RestoreResult:
    """
    Restore the dump, without owners and rights, within the profile's ``restore_timeout``.

    Raises:
        InfrastructureError: The server, the disk or the network failed.
        BackupConfigError: A program of PostgreSQL is missing.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="taskyard-backup-") as private:
        env = job.scratch.server.environment(job.scratch.name, Path(private) / "pgpass")
        try:
            ended = _plain(job, env) if job.dump_format == "plain" else _archive(job, env)
        except (DumpRefusedError, EOFError, BadGzipFile, zlib.error) as error:
            return RestoreResult(str(error), _since(started))
    if ended.is_late:
        return RestoreResult(
            f"not restored within its limit of {job.profile.restore_timeout}; it was ended", _since(started)
        )
    if ended.exit_code == 0 and not ended.fault:
        return RestoreResult(None, _since(started))
    if not job.wanted():
        raise InfrastructureError("the lease on the target was lost; another run verifies it")
    is_verdict = ended.fault.startswith(_VERDICTS) and not any(words in ended.fault for words in _SERVER_FAULTS)
    if not is_verdict or not _is_there(job.scratch):
        raise InfrastructureError(f"the restore was interrupted: {ended.fault}")
    return RestoreResult(ended.fault, _since(started))


def _archive(job: RestoreJob, env: dict[str, str]) -> ProgramExit:
    """Warnings count as errors, since pg_restore also warns of damage; --create is never given."""
    options = ["--exit-on-error", "--no-owner", "--no-privileges", "--no-password", f"--dbname={job.scratch.name}"]
    if job.profile.restore_jobs > 1:
        options.append(f"--jobs={job.profile.restore_jobs}")
    command = ["pg_restore", *options, str(job.dump.path)]
    return job.programs.run(command, env, limit=_limit(job), wanted=job.wanted)


def _plain(job: RestoreJob, env: dict[str, str]) -> ProgramExit:
    """In one transaction, inside which no statement can create or drop a database."""
    options = ["--no-psqlrc", "--quiet", "--no-password", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file=-"]
    with closing(open_plain(job.dump.path)) as lines:
        return job.programs.run(["psql", *options], env, limit=_limit(job), wanted=job.wanted, feed=statements(lines))


def _limit(job: RestoreJob) -> float:
    return job.profile.restore_timeout.total_seconds()


def _is_there(scratch: ScratchDatabase) -> bool:
    try:
        scratch.connect().close()
    except (InfrastructureError, psycopg.Error):
        return False
    return True


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
