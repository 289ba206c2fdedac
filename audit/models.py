"""Table of the application's own audit: what administrators asked for."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from taskyard.database.columns import UtcDateTime, utc_now

METADATA = MetaData()


class AuditTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the tables of this folder."""


class AdminAction(AuditTable, table=True):
    """Who asked for what, and from where."""

    __tablename__ = "admin_actions"
    __table_args__ = (Index("ix_admin_actions_newest", "created_at"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    action: str = Field(max_length=64)
    actor: str | None = Field(default=None, max_length=255)  # address; None: a schedule
    ip: str | None = Field(default=None, max_length=255)
    correlation_id: str | None = Field(default=None, max_length=255, index=True)
    target: str | None = Field(default=None, max_length=255)  # market or report
    created_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
