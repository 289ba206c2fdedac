"""What was verified: queries on the runs."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, tuple_
from sqlmodel import Session, col, select

from tasks.backups.models import BackupRun
from taskyard.database.paging import PAGE, Page, select_page, within


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFilter:
    """Which runs to list; None: any."""

    target: str | None = None
    state: str | None = None  # one of tasks.backups.models.STATES
    since: datetime | None = None  # started then or later
    until: datetime | None = None  # started before


def list_backups(
    session: Session, wanted: BackupFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[BackupRun]:
    """
    Return a page of runs, the newest first.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    equal = ((BackupRun.target, wanted.target), (BackupRun.state, wanted.state))
    conditions = [col(column) == value for column, value in equal if value is not None]
    conditions += within(col(BackupRun.started_at), wanted.since, wanted.until)
    query = select(BackupRun).where(*conditions)
    return select_page(session, query, col(BackupRun.started_at), col(BackupRun.id), limit=limit, after=after)


def find_backup(session: Session, run_id: UUID) -> BackupRun | None:
    """Return the run of this id; None: there is none."""
    return session.get(BackupRun, run_id)


def newest_of_each(session: Session, state: str | None = None) -> dict[str, BackupRun]:
    """Return the newest run of each target that is over, or the newest in one state."""
    is_wanted = col(BackupRun.state) == state if state else col(BackupRun.state) != "running"
    newest = select(BackupRun.target, func.max(BackupRun.started_at)).where(is_wanted).group_by(col(BackupRun.target))
    place = tuple_(col(BackupRun.target), col(BackupRun.started_at))
    rows = session.exec(select(BackupRun).where(is_wanted, place.in_(newest))).all()
    return {row.target: row for row in rows}
