"""The operator log: who changed what, when and why; one row for each command that changed something."""

import getpass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index
from sqlmodel import Field, Session, SQLModel

from config.columns import JsonColumn, UtcDateTime, utc_now


class Operation(SQLModel, table=True):
    """One change that a person made."""

    __tablename__ = "operator_log"
    __table_args__ = (Index("ix_operator_log_newest", "at", "id"),)

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
