"""The operator log: who changed what, when and why; one row for each command that changed something."""

import getpass
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, update
from sqlmodel import Field, Session, col, select

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now
from taskyard.database.paging import PAGE, Page, select_page, within
from taskyard.database.tables import TaskyardTable


class Operation(TaskyardTable, table=True):
    """One change that a person made."""

    __tablename__ = "taskyard_operator_log"
    __table_args__ = (Index("ix_taskyard_operator_log_newest", "at", "id"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    who: str = Field(max_length=255)  # OS user
    verb: str = Field(max_length=64)  # such as "schedules pause"
    target: str = Field(default="", max_length=255)  # name or id; empty: a filter chose
    reason: str | None = Field(default=None, max_length=1000)
    filter: Any = Field(default=None, sa_column=Column(JsonColumn))  # of a command over many, or what was changed
    count: int = 1  # things that were changed


def record_operation(  # noqa: PLR0913 - the columns of one row
    session: Session, verb: str, target: str = "", *, reason: str | None = None, facts: Any = None, count: int = 1
) -> Operation:
    """
    Add a row to the caller's transaction, so that the change and its record are written together or not at all.

    `facts` is the filter of a command over many things, or what else tells the change.
    """
    row = Operation(who=getpass.getuser(), verb=verb, target=target, reason=reason or None, filter=facts, count=count)
    session.add(row)
    return row


def add_to_count(session: Session, operation_id: UUID | None, number: int) -> None:
    """Count what one batch changed, in the batch's own transaction; None: it has no row."""
    if operation_id is not None:
        query = update(Operation).where(col(Operation.id) == operation_id)
        session.connection().execute(query.values(count=col(Operation.count) + number))


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFilter:
    """Which rows are wanted; None: any."""

    who: str | None = None
    verb: str | None = None  # how it begins, such as "queues" or "queues pause"
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def list_operations(
    session: Session, wanted: OperationFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[Operation]:
    """
    Return a page of rows, the newest first.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    equal = ((col(Operation.who), wanted.who), (col(Operation.target), wanted.target))
    conditions = [column == value for column, value in equal if value is not None]
    if wanted.verb is not None:
        conditions.append(col(Operation.verb).startswith(wanted.verb, autoescape=True))
    conditions += within(col(Operation.at), wanted.since, wanted.until)
    query = select(Operation).where(*conditions)
    return select_page(session, query, col(Operation.at), col(Operation.id), limit=limit, after=after)
