"""Tables of the scheduler: schedules, their fires, and the state that leaders share."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint
from sqlmodel import Field

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now
from taskyard.database.tables import TaskyardTable

FIRE_STATES = ("pending", "published", "skipped", "missed", "refused", "withdrawn")


def moment(*, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC."""
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


def count() -> Any:
    """Declare a column that counts from 0."""
    return Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


class Schedule(TaskyardTable, table=True):
    """What is enqueued when; the definition, what an operator decided, and how far the leader has come."""

    __tablename__ = "taskyard_schedules"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(max_length=128, unique=True)
    owner: str = Field(max_length=16)  # code or operator

    task: str = Field(max_length=255)
    args: Any = Field(default_factory=dict, sa_column=Column(JsonColumn, nullable=False))  # the payload as JSON
    kind: str = Field(max_length=8)  # cron, every or once
    expression: str = Field(max_length=200)  # a cron expression, a number of seconds, or a moment
    zone: str = Field(default="UTC", max_length=64)  # IANA name
    jitter_ms: int = 0  # the schedule is shifted by a fixed part of this
    start_at: datetime | None = moment()  # first possible slot
    end_at: datetime | None = moment()  # no slot at or after this
    misfire: str = Field(default="run_once", max_length=16)  # skip, run_once or run_all
    misfire_limit: int = 1  # slots that run_all makes up for
    overlap: str = Field(default="allow", max_length=8)  # allow or skip
    priority: int = 5  # 0-9, 9 first
    note: str = Field(default="", max_length=500)

    paused_at: datetime | None = moment()
    paused_by: str | None = Field(default=None, max_length=255)  # OS user
    pause_reason: str | None = Field(default=None, max_length=500)
    retired_at: datetime | None = moment()  # code no longer declares it

    cursor: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))  # slots up to here are settled
    changes: int = count()  # number of the change that last touched the definition
    last_slot: datetime | None = moment()  # newest slot that was enqueued
    last_run_id: UUID | None = None
    last_fired_at: datetime | None = moment()
    fired: int = count()  # slots that were enqueued
    skipped: int = count()  # slots left out because the run before was not done
    missed: int = count()  # slots that passed during an outage and were not made up for

    created_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    created_by: str = Field(default="", max_length=255)
    updated_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    updated_by: str = Field(default="", max_length=255)


class ScheduleFire(TaskyardTable, table=True):
    """One slot that was dealt with; the row is there before its message is. The id is the id of the run."""

    __tablename__ = "taskyard_schedule_fires"
    __table_args__ = (
        UniqueConstraint("schedule_id", "slot", name="uq_taskyard_schedule_fires_schedule_slot"),
        Index("ix_taskyard_schedule_fires_state", "state", "recorded_at"),
        Index("ix_taskyard_schedule_fires_recorded", "recorded_at"),
    )

    id: UUID = Field(primary_key=True)  # derived from schedule and slot
    schedule_id: UUID  # without a foreign key: fires outlive their schedule
    slot: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    due_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))  # the slot and the schedule's shift
    state: str = Field(max_length=16)  # one of FIRE_STATES
    is_manual: bool = False  # fired by a person, with a slot of its own
    slots: int = 1  # that this row stands for; missed slots of one outage share a row
    lag_ms: int | None = None  # from due to published; 0 when it was published ahead
    fence: int = count()  # of the leader that recorded it; 0: a person
    error: str | None = Field(default=None, max_length=1000)
    recorded_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    published_at: datetime | None = moment()


class BeatState(TaskyardTable, table=True):
    """A number that all processes share: `leader` holds the highest fencing token seen, `changes` counts changes."""

    __tablename__ = "taskyard_beat_state"

    name: str = Field(primary_key=True, max_length=16)
    value: int = count()
    holder: str = Field(default="", max_length=255)  # of `leader`: host and process id
    at: datetime | None = moment()  # of the last change of the holder
