"""Observers of executions, such as metrics; called in the worker's main process."""

from dataclasses import dataclass
from typing import Literal

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
