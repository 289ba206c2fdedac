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
    either side waits for the other at most `PATIENCE`; but two suspects never run together. The broker knows which
    suspects wait: the death of the worker is not counted against them.
    """

    def __init__(self, dispatch: Any, patience: float = PATIENCE) -> None:
        """`dispatch` hands a request to the pool; `patience` in seconds."""
        self._dispatch = dispatch
        self._patience = patience
        self._waiting: deque[tuple[Any, float]] = deque()  # requests, and when they came (monotonic seconds)
        self._suspect: Any = None  # the one that runs, or ran last

    def admit(self, request: Any) -> None:
        """Dispatch a request now, or when its turn comes."""
        if not self._waiting and self._suspect is None and not _is_suspect(request):
            self._dispatch(request)
            return
        self._waiting.append((request, monotonic()))
        if _is_suspect(request):
            request.hold_back()
        # It starts in the next turn at the earliest: by then all that were taken with it are held back.

    def release(self) -> None:
        """Dispatch those whose turn has come; called in each turn of the loop."""
        if self._suspect is not None and self._suspect not in state.reserved_requests:
            self._suspect = None
        while self._waiting and self._may_start(*self._waiting[0]):
            request, _ = self._waiting[0]
            if _is_suspect(request):
                request.let_go()
                self._suspect = request
            self._waiting.popleft()
            self._dispatch(request)

    def _may_start(self, request: Any, came_at: float) -> bool:
        is_impatient = monotonic() - came_at >= self._patience
        if self._suspect is not None:
            return is_impatient and not _is_suspect(request)
        return is_impatient or not _is_suspect(request) or not self._is_busy()

    def _is_busy(self) -> bool:
        waiting = {id(request) for request, _ in self._waiting}
        return any(id(request) not in waiting for request in list(state.reserved_requests))


def _is_suspect(request: Any) -> bool:
    return getattr(request, "stalls", 0) > 0
