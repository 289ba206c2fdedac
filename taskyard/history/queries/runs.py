"""Queries on runs and their attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Text, cast, or_
from sqlmodel import Session, col, select

from taskyard.database.paging import LONGEST_PAGE, PAGE, Page, select_page, within
from taskyard.history.models import Attempt, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Selects runs; None matches any value."""

    task: str | None = None
    queue: str | None = None
    state: str | None = None  # one of taskyard.history.models.STATES
    user_id: str | None = None
    signature: str | None = None  # of the error
    text: str | None = None  # in the masked arguments or the error message; case-sensitive on PostgreSQL only
    since: datetime | None = None  # enqueued at or after this time
    until: datetime | None = None  # enqueued before this time


def list_runs(session: Session, wanted: RunFilter, *, limit: int = PAGE, after: str | None = None) -> Page[Run]:
    """
    Return a page of runs, newest first.

    Raises:
        BadCursorError: `after` is not a cursor of an earlier page.
    """
    query = select(Run).where(*_conditions(wanted))
    return select_page(session, query, col(Run.enqueued_at), col(Run.id), limit=limit, after=after)


def find_run(session: Session, run_id: str) -> Run | None:
    """Return a run; None: unknown, or not written yet."""
    return session.get(Run, run_id)


def attempts_of(session: Session, run_id: str) -> Sequence[Attempt]:
    """Return the attempts of a run in order."""
    return session.exec(select(Attempt).where(Attempt.run_id == run_id).order_by(col(Attempt.number))).all()


def children_of(session: Session, run_id: str, *, limit: int = PAGE) -> Sequence[Run]:
    """Return the first runs that this run enqueued."""
    query = select(Run).where(Run.parent_id == run_id).order_by(col(Run.enqueued_at), col(Run.id)).limit(limit)
    return session.exec(query).all()


def each_run(session: Session, wanted: RunFilter, *, batch: int = LONGEST_PAGE) -> Iterator[tuple[Run, list[Attempt]]]:
    """Yield each matching run with its attempts, newest first; holds one page in memory."""
    after: str | None = None
    while True:
        page = list_runs(session, wanted, limit=batch, after=after)
        attempts: dict[str, list[Attempt]] = {run.id: [] for run in page.rows}
        query = select(Attempt).where(col(Attempt.run_id).in_(attempts)).order_by(col(Attempt.number))
        for attempt in session.exec(query).all():
            attempts[attempt.run_id].append(attempt)
        session.commit()  # SQLite: a read transaction holds the write lock
        for run in page.rows:
            yield run, attempts[run.id]
        session.expunge_all()
        after = page.after
        if after is None:
            return


def _conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    equal = (
        (Run.task, wanted.task),
        (Run.queue, wanted.queue),
        (Run.state, wanted.state),
        (Run.user_id, wanted.user_id),
        (Run.error_signature, wanted.signature),
    )
    conditions = [col(column) == value for column, value in equal if value is not None]
    conditions += within(col(Run.enqueued_at), wanted.since, wanted.until)
    if wanted.text is not None:
        args, message = cast(col(Run.args), Text), col(Run.error_message)
        conditions.append(
            or_(args.contains(wanted.text, autoescape=True), message.contains(wanted.text, autoescape=True))
        )
    return conditions
