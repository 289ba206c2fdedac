"""Who wants to know how executions begin and end: metrics. Watchers are called in the worker's main process."""

from dataclasses import dataclass
from typing import Literal

type Result = Literal["succeeded", "failed", "retrying", "snoozed", "stalled", "cancelled"]


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution, as far as it has come; a watcher must neither block nor raise."""

    task: str
    queue: str
    waited: float | None  # seconds from put, due or taken back to the start; None: the transport does not say
    runtime: float | None = None  # seconds; None: it never started, or nobody measured


class Watcher:
    """Base of watchers: does nothing."""

    def started(self, execution: Execution) -> None:
        """A pool process or thread has it."""

    def ended(self, execution: Execution, result: Result) -> None:
        """How it ended was decided."""


watchers: list[Watcher] = []  # of this process
