"""The store of dead letters: each is inserted once, and resolved by exactly one person or process."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Table, func, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.database.paging import PAGE, Page, select_page, within
from taskyard.history.models import Attempt, DeadLetter

STATES = ("open", "redriven", "discarded")
FAILED_ATTEMPTS = ("retrying", "failed")
DEAD_LETTER_TABLE: Table = DeadLetter.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Selects dead letters; None matches any value."""

    state: str | None = "open"
    task: str | None = None
    queue: str | None = None
    reason: str | None = None
    signature: str | None = None
    since: datetime | None = None  # failed at or after this time
    until: datetime | None = None  # failed before this time


def insert_dead_letter(session: Session, dead_letter: DeadLetter) -> bool:
    """
    Insert a dead letter; False: this attempt of this run already has one, which is left unchanged.

    A dead letter without `first_failed_at` gets the time of the first failed attempt on record.
    The caller commits.
    """
    if dead_letter.first_failed_at is None:
        dead_letter.first_failed_at = _first_failure(session, dead_letter.run_id) or dead_letter.failed_at
    values = {column.name: getattr(dead_letter, column.name) for column in DEAD_LETTER_TABLE.columns}
    values["id"] = values["id"] or uuid4()
    make: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = make(DEAD_LETTER_TABLE).values(**values).on_conflict_do_nothing(index_elements=["run_id", "attempt"])
    return session.connection().execute(statement.returning(DEAD_LETTER_TABLE.c.id)).first() is not None


def find_dead_letter(session: Session, dead_letter_id: UUID) -> DeadLetter | None:
    """Return the current state of a dead letter; None: unknown id."""
    return session.get(DeadLetter, dead_letter_id, populate_existing=True)


def open_dead_letter_of(session: Session, run_id: str) -> DeadLetter | None:
    """Return the open dead letter of a run; None: it has none."""
    query = select(DeadLetter).where(_is_of(run_id), DeadLetter.state == "open")
    return session.exec(query.order_by(col(DeadLetter.attempt).desc()).limit(1)).first()


def _is_of(run_id: str) -> ColumnElement[bool]:
    """Celery's own retry, and an exchange with several queues, make messages of one run that the broker tells apart."""
    return or_(col(DeadLetter.run_id) == run_id, col(DeadLetter.run_id).startswith(f"{run_id}~", autoescape=True))


def dead_letters_of_run(session: Session, run_id: str) -> list[UUID]:
    """Return the ids of a run's dead letters, oldest first."""
    query = select(DeadLetter.id).where(_is_of(run_id)).order_by(col(DeadLetter.attempt))
    return list(session.exec(query).all())


def list_dead_letters(
    session: Session, wanted: DeadLetterFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[DeadLetter]:
    """
    Return a page of dead letters, newest failure first.

    Raises:
        BadCursorError: `after` is not a cursor of an earlier page.
    """
    query = select(DeadLetter).where(*_conditions(wanted))
    return select_page(session, query, col(DeadLetter.failed_at), col(DeadLetter.id), limit=limit, after=after)


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters with the same cause."""

    signature: str
    task: str | None
    reason: str
    error_type: str
    error_message: str  # of one of them
    count: int
    oldest: datetime
    newest: datetime


def group_dead_letters(session: Session, wanted: DeadLetterFilter, *, limit: int = PAGE) -> list[DeadLetterGroup]:
    """Return dead letters grouped by cause, most frequent first."""
    dead_letter = DeadLetter
    keys = (dead_letter.error_signature, dead_letter.task, dead_letter.reason, dead_letter.error_type)
    count = func.count().label("count")
    facts = (
        func.max(dead_letter.error_message),
        count,
        func.min(dead_letter.failed_at),
        func.max(dead_letter.failed_at),
    )
    query: Any = select(*keys, *facts)  # type: ignore[call-overload]  # SQLModel types four columns at most
    query = query.where(*_conditions(wanted)).group_by(*keys).order_by(count.desc(), dead_letter.error_signature)
    return [DeadLetterGroup(*row) for row in session.exec(query.limit(limit)).all()]


def count_dead_letters(session: Session, wanted: DeadLetterFilter) -> int:
    """Return how many dead letters match a filter."""
    return session.exec(select(func.count()).select_from(DeadLetter).where(*_conditions(wanted))).one()


def claim_for_redrive(  # noqa: PLR0913 - the columns it sets
    session: Session, dead_letter_id: UUID, run_id: str, *, by: str, reason: str, operation_id: UUID | None = None
) -> datetime | None:
    """
    Mark an open dead letter as redriven into `run_id`, and return the mark; None: it is not open.

    Only one of several concurrent callers gets a mark. The caller commits, sends, then calls :func:`confirm_sent`.
    """
    mark = utc_now()
    facts = {"state": "redriven", "redriven_run_id": run_id, "operation_id": operation_id}
    claimed = _resolve(session, dead_letter_id, by=by, reason=reason, mark=mark, **facts)
    return mark if claimed else None


def take_over_redrive(session: Session, dead_letter: DeadLetter, *, by: str, reason: str) -> datetime | None:
    """
    Take over a redrive that was marked but not confirmed, and return the new mark; None: somebody else did.

    The caller commits, sends again with the same run id, and calls :func:`confirm_sent`.
    """
    mark = utc_now()
    statement = update(DeadLetter).where(
        col(DeadLetter.id) == dead_letter.id,
        col(DeadLetter.state) == "redriven",
        col(DeadLetter.redrive_sent_at).is_(None),
        col(DeadLetter.resolved_at) == dead_letter.resolved_at,
    )
    return mark if _changes(session, statement.values(resolved_at=mark, resolved_by=by, resolution=reason)) else None


def confirm_sent(session: Session, dead_letter_id: UUID) -> None:
    """Record that the redriven run was sent. The caller commits."""
    _changes(session, update(DeadLetter).where(col(DeadLetter.id) == dead_letter_id).values(redrive_sent_at=utc_now()))


def reopen(session: Session, dead_letter_id: UUID, mark: datetime) -> None:
    """Reopen a dead letter whose redrive failed, if the mark is still ours. The caller commits."""
    statement = update(DeadLetter).where(
        col(DeadLetter.id) == dead_letter_id,
        col(DeadLetter.state) == "redriven",
        col(DeadLetter.redrive_sent_at).is_(None),
        col(DeadLetter.resolved_at) == mark,
    )
    names = ("redriven_run_id", "resolved_at", "resolved_by", "resolution", "operation_id")
    nobody: dict[str, Any] = dict.fromkeys(names)
    _changes(session, statement.values(state="open", **nobody))


def discard_dead_letter(
    session: Session, dead_letter_id: UUID, *, by: str, reason: str, operation_id: UUID | None = None
) -> bool:
    """Discard an open dead letter; False: it is not open. The caller commits."""
    facts = {"state": "discarded", "operation_id": operation_id}
    return _resolve(session, dead_letter_id, by=by, reason=reason, mark=utc_now(), **facts)


def discard_dead_letters_of(session: Session, run_ids: Sequence[str], *, by: str, reason: str) -> list[str]:
    """Discard the open dead letters of runs; return the ids of runs that had one. The caller commits."""
    facts = {"state": "discarded", "resolved_by": by, "resolution": reason, "resolved_at": utc_now()}
    is_meant = (col(DeadLetter.run_id).in_(run_ids), col(DeadLetter.state) == "open")
    found = session.connection().execute(
        update(DeadLetter).where(*is_meant).values(**facts).returning(col(DeadLetter.run_id))
    )
    return list(dict.fromkeys(found.scalars()))


def _resolve(session: Session, dead_letter_id: UUID, *, by: str, reason: str, mark: datetime, **values: Any) -> bool:
    statement = update(DeadLetter).where(col(DeadLetter.id) == dead_letter_id, col(DeadLetter.state) == "open")
    return _changes(session, statement.values(resolved_by=by, resolution=reason, resolved_at=mark, **values))


def _changes(session: Session, statement: Any) -> bool:
    return bool(session.connection().execute(statement).rowcount)


def _first_failure(session: Session, run_id: str) -> datetime | None:
    query = select(Attempt.finished_at).where(
        Attempt.run_id == run_id, col(Attempt.state).in_(FAILED_ATTEMPTS), col(Attempt.finished_at).is_not(None)
    )
    return session.exec(query.order_by(col(Attempt.number)).limit(1)).first()


def _conditions(wanted: DeadLetterFilter) -> list[ColumnElement[bool]]:
    equal = (
        (DeadLetter.state, wanted.state),
        (DeadLetter.task, wanted.task),
        (DeadLetter.queue, wanted.queue),
        (DeadLetter.reason, wanted.reason),
        (DeadLetter.error_signature, wanted.signature),
    )
    conditions = [col(column) == value for column, value in equal if value is not None]
    return conditions + within(col(DeadLetter.failed_at), wanted.since, wanted.until)
