"""Tables of backup verification: runs with their checks, and the leases that keep one run per target."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Column, Index, MetaData
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now

# error: could not be verified; lost: its worker died. Neither says anything about the backup.
STATES = ("running", "passed", "failed", "error", "lost")
FINAL_STATES = STATES[1:]


METADATA = MetaData()


class BackupTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the tables of this domain."""


class BackupRun(BackupTable, table=True):
    """One verification of one target's newest dump."""

    __tablename__ = "backup_runs"
    __table_args__ = (
        Index("ix_backup_runs_target", "target", "started_at"),
        Index("ix_backup_runs_newest", "started_at", "id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    target: str = Field(max_length=31)
    state: str = Field(default="running", max_length=16)  # one of STATES
    holder: str = Field(max_length=155)  # the task's run id, or the command's
    worker: str = Field(max_length=255)  # host name
    started_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    finished_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    duration_ms: int | None = None
    restore_ms: int | None = None
    dump: str | None = None  # name of the file or folder
    dump_format: str | None = Field(default=None, max_length=16)
    dump_taken_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    dump_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    dump_sha256: str | None = Field(default=None, max_length=64)
    reason: str | None = None  # why it is not passed; bounded text
    checks: Any = Field(default=None, sa_column=Column(JsonColumn))  # list of {name, passed, detail}
    facts: Any = Field(default=None, sa_column=Column(JsonColumn))  # what the next run is compared with


class BackupLease(BackupTable, table=True):
    """The right to verify a target, until it ends; its holder renews it while it works."""

    __tablename__ = "backup_leases"

    target: str = Field(primary_key=True, max_length=31)
    token: UUID
    holder: str = Field(max_length=155)
    until: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
