"""Observers of executions, such as metrics; called in the worker's main process."""

from dataclasses import dataclass
from typing import Literal

from taskyard.broker.protocol.outcomes import Completed, DeadLettered, Outcome, Rescheduled

type ExecutionResult = Literal["succeeded", "failed", "retrying", "snoozed", "stalled", "cancelled"]


@dataclass(frozen=True, slots=True)
class TaskExecution:
    """One execution so far; an observer must neither block nor raise."""

    task: str
    queue: str
    waited: float | None  # seconds from put, due or taken back to the start; None: the transport does not say
    runtime: float | None = None  # seconds; None: it never started, or was not measured


class ExecutionObserver:
    """Base class of observers; does nothing."""

    def started(self, execution: TaskExecution) -> None:
        """It started."""

    def ended(self, execution: TaskExecution, result: ExecutionResult) -> None:
        """How it ended was decided."""


execution_observers: list[ExecutionObserver] = []  # of this process


def result_of(ending: Outcome) -> ExecutionResult:
    """Return what an outcome means for observers."""
    match ending:
        case Rescheduled(event=event):
            return event
        case Completed(event=event):
            return event or "retrying"  # Celery's own retry has sent a new message
        case DeadLettered():
            return "failed"
        case _:
            return "stalled"
