"""The SQL of backup verification: the lease on a target, the history of runs, the last good one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from tasks.backups.checks.verification_report import BackupFacts, FinishedVerification, VerificationReport
from tasks.backups.models import BackupLease, BackupRun
from taskyard.database.columns import utc_now

# Writes the notice of a run into the transaction that ends it; a fault of the notice alone never raises.
type AnnounceRun = Callable[[Session, FinishedVerification], None]


@dataclass(frozen=True, slots=True)
class TargetLease:
    """The right to verify a target, held by one run."""

    target: str
    token: UUID
    holder: str


@dataclass(frozen=True, slots=True)
class LeaseRefusal:
    """The lease is taken, at least until then."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True)
class LastGoodRun:
    """The newest run that passed."""

    started_at: datetime
    dump_bytes: int | None
    facts: BackupFacts


class BackupStore:
    """Reads and writes the tables; every method is one transaction."""

    def __init__(self, open_session: Callable[[], Session], announce: AnnounceRun, lease_time: timedelta) -> None:
        self._open_session = open_session
        self._announce = announce
        self.lease_time = lease_time

    def take_lease(self, target: str, holder: str) -> TargetLease | LeaseRefusal:
        """Take the lease if it is free or has run out: one statement, so that of two callers one gets it."""
        now = utc_now()
        values: dict[str, Any] = {"token": uuid4(), "holder": holder, "until": now + self.lease_time}
        with self._open_session() as session, session.begin():
            dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
            insert = dialect.insert(BackupLease).values(target=target, **values)
            taken = session.execute(
                insert.on_conflict_do_update(
                    index_elements=["target"], set_=values, where=col(BackupLease.until) < now
                ).returning(col(BackupLease.token))
            ).scalar_one_or_none()
            if taken is not None:
                return TargetLease(target, values["token"], holder)
            row = session.get(BackupLease, target)
            return LeaseRefusal(row.holder, row.until) if row else LeaseRefusal("another run", now)

    def renew(self, lease: TargetLease) -> bool:
        """Extend the lease; return False when it was lost."""
        return self._change_lease(
            lease, update(BackupLease).values(until=utc_now() + self.lease_time), must_be_valid=True
        )

    def release(self, lease: TargetLease) -> None:
        """Release the lease; one that was lost is left to its new holder."""
        self._change_lease(lease, delete(BackupLease), must_be_valid=False)

    def start(self, run_id: UUID, target: str, holder: str, worker: str) -> datetime:
        """Insert the row of a run that starts; older runs of the target still marked running have lost their worker."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            session.execute(
                update(BackupRun)
                .where(col(BackupRun.target) == target, col(BackupRun.state) == "running")
                .values(state="lost", finished_at=now, reason="its worker ended before it did")
            )
            session.add(BackupRun(id=run_id, target=target, holder=holder, worker=worker, started_at=now))
        return now

    def finish(self, run_id: UUID, report: VerificationReport) -> FinishedVerification:
        """Record the result of the run, and its notice, in one transaction."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            row = session.get_one(BackupRun, run_id)
            _fill(row, report, now)
            finished = FinishedVerification(
                run_id=str(run_id),
                target=row.target,
                state=row.state,
                report=report,
                started_at=row.started_at,
                finished_at=now,
                holder=row.holder,
            )
            session.flush()
            self._announce(session, finished)
        return finished

    def last_good(self, target: str) -> LastGoodRun | None:
        """Return the newest run that passed."""
        with self._open_session() as session:
            row = session.scalars(
                select(BackupRun)
                .where(col(BackupRun.target) == target, col(BackupRun.state) == "passed")
                .order_by(col(BackupRun.started_at).desc())
                .limit(1)
            ).first()
            if row is None:
                return None
            return LastGoodRun(row.started_at, row.dump_bytes, BackupFacts.model_validate(row.facts or {}))

    def _change_lease(self, lease: TargetLease, statement: Any, *, must_be_valid: bool) -> bool:
        mine = [col(BackupLease.target) == lease.target, col(BackupLease.token) == lease.token]
        if must_be_valid:
            mine.append(col(BackupLease.until) >= utc_now())
        with self._open_session() as session, session.begin():
            changed = session.execute(statement.where(*mine).returning(col(BackupLease.target)))
            return changed.scalar_one_or_none() is not None


def _fill(row: BackupRun, report: VerificationReport, now: datetime) -> None:
    row.state, row.reason, row.finished_at = report.state, report.reason, now
    row.duration_ms = round((now - row.started_at) / timedelta(milliseconds=1))
    row.restore_ms = report.restore_ms
    row.dump, row.dump_format = report.dump, report.dump_format
    row.dump_taken_at, row.dump_bytes, row.dump_sha256 = report.dump_taken_at, report.dump_bytes, report.dump_sha256
    row.checks = report.kept_checks()
    row.facts = report.facts.model_dump()
