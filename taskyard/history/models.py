"""Tables of the history: runs, their attempts and logs, dead letters, and operations on many of them."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field

from taskyard.database.columns import JsonColumn, UtcDateTime, utc_now
from taskyard.database.tables import TaskyardTable

STATES = ("queued", "scheduled", "running", "retrying", "succeeded", "failed", "cancelled")
FINAL_STATES = ("succeeded", "failed", "cancelled")


def moment(*, index: bool = False, nullable: bool = True) -> Any:
    """Declare a column that holds a moment in UTC."""
    return Field(default=None, sa_column=Column(UtcDateTime, index=index, nullable=nullable))


class Run(TaskyardTable, table=True):
    """One task id with all its attempts."""

    __tablename__ = "taskyard_runs"
    __table_args__ = (
        Index("ix_taskyard_runs_newest", "enqueued_at", "id"),
        # The last columns answer a second filter that fits no run: in the index, without a look at each row.
        Index("ix_taskyard_runs_state", "state", "enqueued_at", "task", "queue"),
        Index("ix_taskyard_runs_task", "task", "enqueued_at", "queue"),
        Index("ix_taskyard_runs_queue", "queue", "enqueued_at"),
        Index("ix_taskyard_runs_user", "user_id", "enqueued_at"),
        Index("ix_taskyard_runs_signature", "error_signature", "enqueued_at"),
        Index("ix_taskyard_runs_finished", "finished_at"),
    )

    id: str = Field(primary_key=True, max_length=155)
    task: str = Field(max_length=255)
    queue: str = Field(max_length=255)
    priority: int = 5  # 0-9, 9 first
    state: str = Field(max_length=16)  # one of STATES
    attempts: int = 0  # executions so far
    user_id: str | None = Field(default=None, max_length=255)
    correlation_id: str | None = Field(default=None, max_length=255)
    parent_id: str | None = Field(default=None, max_length=155, index=True)
    root_id: str | None = Field(default=None, max_length=155)
    redrive_of: str | None = Field(default=None, max_length=36)  # id of the dead letter it was redriven from
    args: Any = Field(default=None, sa_column=Column(JsonColumn))  # hidden fields are masked
    enqueued_at: datetime | None = moment()
    scheduled_for: datetime | None = moment()  # first start that its caller asked for; None: at once
    due_at: datetime | None = moment()  # of a delayed run, or of the next attempt
    started_at: datetime | None = moment()  # first attempt
    finished_at: datetime | None = moment()
    wait_ms: int | None = None  # from enqueued, or due, to the first start
    runtime_ms: int | None = None  # of the last attempt
    result: str | None = None  # bounded text
    error_type: str | None = Field(default=None, max_length=255)  # of the last failed attempt
    error_message: str | None = None  # bounded text
    error_signature: str | None = Field(default=None, max_length=64)
    progress: Any = Field(
        default=None, sa_column=Column(JsonColumn)
    )  # done, total, note and at; see taskyard.tasks.reporting
    progress_event: str = Field(default="", max_length=40)  # stream id of the newest word of progress
    queued_event: str = Field(default="", max_length=40)  # stream id of the newest enqueue: its facts are these
    error_event: str = Field(
        default="", max_length=64
    )  # rank of the event whose error this is; see taskyard.history.writer.reducer
    last_event: str = Field(
        default="", max_length=64
    )  # rank of the event that decided the state; see taskyard.history.writer.reducer


class Attempt(TaskyardTable, table=True):
    """One execution of a run; an execution that was snoozed keeps its number when it comes back."""

    __tablename__ = "taskyard_attempts"

    run_id: str = Field(primary_key=True, max_length=155)
    number: int = Field(primary_key=True)  # from 1
    state: str = Field(max_length=16)  # running, retrying, succeeded, failed, cancelled, stalled or snoozed
    snoozes: int = 0
    started_at: datetime | None = moment()  # first start
    finished_at: datetime | None = moment()
    next_try_at: datetime | None = moment()
    wait_ms: int | None = None
    runtime_ms: int | None = None
    worker: str | None = Field(default=None, max_length=255)  # node name, of the newest start
    pid: int | None = None
    error_type: str | None = Field(default=None, max_length=255)
    error_message: str | None = None
    traceback: str | None = None  # bounded text
    executions: Any = Field(default=None, sa_column=Column(JsonColumn))  # starts and stalls, if not just one start
    started_event: str = Field(default="", max_length=40)  # stream id of the newest start
    last_snooze: str = Field(default="", max_length=40)  # stream id up to which snoozes are counted
    last_event: str = Field(default="", max_length=64)  # rank of the event that decided the state


class TaskLog(TaskyardTable, table=True):
    """Some lines that a handler logged in one attempt; the key makes it one row, however often they arrive."""

    __tablename__ = "taskyard_task_logs"

    run_id: str = Field(primary_key=True, max_length=155)
    attempt: int = Field(primary_key=True)
    event: str = Field(primary_key=True, max_length=40)  # stream id: text order is the order in which they were sent
    lines: Any = Field(default=None, sa_column=Column(JsonColumn))  # list of {at, level, logger, message}


class DeadLetter(TaskyardTable, table=True):
    """A run that failed for good, with what is needed to run it again."""

    __tablename__ = "taskyard_dead_letters"
    __table_args__ = (
        UniqueConstraint("run_id", "attempt", name="uq_taskyard_dead_letters_run_attempt"),
        Index("ix_taskyard_dead_letters_newest", "state", "failed_at", "id"),
        Index("ix_taskyard_dead_letters_operation", "operation_id", "state"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    run_id: str = Field(max_length=155)
    attempt: int
    task: str | None = Field(default=None, max_length=255, index=True)  # None: the message was undecodable
    queue: str = Field(max_length=255)
    reason: str = Field(max_length=32)  # exhausted, permanent, invalid_payload, time_limit, stalled, unknown_task, ...
    error_type: str = Field(max_length=255)
    error_message: str
    error_signature: str = Field(max_length=64, index=True)
    traceback: str | None = None
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # of the message, as it came
    headers: Any = Field(default=None, sa_column=Column(JsonColumn))  # of the message
    first_failed_at: datetime | None = moment()
    failed_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    state: str = Field(default="open", max_length=16)  # open, redriven or discarded
    redriven_run_id: str | None = Field(default=None, max_length=155)
    redrive_sent_at: datetime | None = moment()  # None though redriven: marked, and not known to have been sent
    resolved_at: datetime | None = moment()
    resolved_by: str | None = Field(default=None, max_length=255)  # OS user
    resolution: str | None = None  # the operator's reason
    operation_id: UUID | None = None  # the operation on many that resolved it; None: it was resolved alone


class BulkOperation(TaskyardTable, table=True):
    """A redrive or discard of many dead letters, done by a task; how many are done, the letters themselves say."""

    __tablename__ = "taskyard_bulk_operations"
    __table_args__ = (Index("ix_taskyard_bulk_operations_newest", "created_at", "id"),)

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    verb: str = Field(max_length=16)  # redrive or discard
    state: str = Field(default="running", max_length=16)  # running, done or aborted
    filter: Any = Field(default=None, sa_column=Column(JsonColumn))
    who: str = Field(max_length=255)  # OS user
    reason: str | None = Field(default=None, max_length=1000)
    total: int  # dead letters that the filter meant at the start
    refused: Any = Field(default=None, sa_column=Column(JsonColumn))  # the first few: list of {id, error}
    refused_count: int = 0
    place: str | None = Field(default=None, max_length=255)  # cursor: how far it has come; None: not begun
    created_at: datetime = Field(default_factory=utc_now, sa_column=Column(UtcDateTime, nullable=False))
    finished_at: datetime | None = moment()
    aborted_by: str | None = Field(default=None, max_length=255)
