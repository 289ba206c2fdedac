"""Run suspects alone: a message that lost a worker before may end this one, and what else runs in its process."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from celery.worker import state

PATIENCE = 60.0  # seconds that a suspect and the others wait for each other


class SuspectGate:
    """
    Stands before a pool whose tasks share one process: threads, coroutines.

    A suspect starts when nothing else runs, and nothing starts beside it. So that one long task cannot idle all slots,
    either side waits for the other at most `PATIENCE`; but two suspects never run together. The broker hands suspects
    out as held back and is told when one runs alone: only then is the death of the worker counted against it.
    """

    def __init__(self, dispatch: Any, patience: float = PATIENCE) -> None:
        """`dispatch` hands a request to the pool; `patience` in seconds."""
        self._dispatch = dispatch
        self._patience = patience
        self._waiting: deque[tuple[Any, float]] = deque()  # requests, and when they came (monotonic seconds)
        self._suspect: Any = None  # the one that runs, or ran last
        self._is_alone = False  # whether nothing runs beside the suspect

    def admit(self, request: Any) -> None:
        """Dispatch a request now, or when its turn comes."""
        if not self._waiting and self._suspect is None and not _is_suspect(request):
            self._dispatch(request)
            return
        self._waiting.append((request, monotonic()))

    def release(self) -> None:
        """Dispatch those whose turn has come; called in each turn of the loop."""
        if self._suspect is not None and self._suspect not in state.reserved_requests:
            self._suspect = None
        while self._waiting:
            entry = self._next()
            if not self._may_start(*entry):
                return
            request = entry[0]
            self._announce(request)
            self._waiting.remove(entry)
            self._dispatch(request)

    def _next(self) -> tuple[Any, float]:
        """The first that came; of suspects the least suspicious, so that the others are over before one ends us all."""
        first = self._waiting[0]
        if not _is_suspect(first[0]):
            return first
        return min((entry for entry in self._waiting if _is_suspect(entry[0])), key=lambda entry: entry[0].stalls)

    def _may_start(self, request: Any, came_at: float) -> bool:
        is_impatient = monotonic() - came_at >= self._patience
        if self._suspect is not None:
            return is_impatient and not _is_suspect(request)
        return is_impatient or not _is_suspect(request) or not self._is_busy()

    def _announce(self, request: Any) -> None:
        """Tell the broker when a suspect begins to run alone, and when it no longer does."""
        if _is_suspect(request):
            is_alone = not self._is_busy()
            if is_alone:
                request.let_go()
            self._suspect, self._is_alone = request, is_alone
        elif self._suspect is not None and self._is_alone:
            self._suspect.hold_back()
            self._is_alone = False

    def _is_busy(self) -> bool:
        waiting = {id(request) for request, _ in self._waiting}
        return any(id(request) not in waiting for request in list(state.reserved_requests))


def _is_suspect(request: Any) -> bool:
    return bool(getattr(request, "is_suspect", False))
