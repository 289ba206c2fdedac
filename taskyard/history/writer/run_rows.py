"""Rows of the audit as plain objects: the fold changes them a dozen times per event, which SQLModel's make slow."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class RunRow:
    """A row of :class:`taskyard.history.models.Run`: the same names, in the same order."""

    id: str
    task: str
    queue: str
    priority: int = 5
    state: str = ""
    attempts: int = 0
    user_id: str | None = None
    correlation_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    redrive_of: str | None = None
    args: Any = None
    enqueued_at: datetime | None = None
    scheduled_for: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    wait_ms: int | None = None
    runtime_ms: int | None = None
    result: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_signature: str | None = None
    progress: Any = None
    progress_event: str = ""
    queued_event: str = ""
    error_event: str = ""
    last_event: str = ""


@dataclass(slots=True)
class AttemptRow:
    """A row of :class:`taskyard.history.models.Attempt`: the same names, in the same order."""

    run_id: str
    number: int
    state: str = ""
    snoozes: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_try_at: datetime | None = None
    wait_ms: int | None = None
    runtime_ms: int | None = None
    worker: str | None = None
    pid: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    traceback: str | None = None
    executions: Any = None
    started_event: str = ""
    last_snooze: str = ""
    last_event: str = ""
