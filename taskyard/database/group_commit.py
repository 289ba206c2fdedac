"""Group commit: concurrent calls from many threads share one transaction."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import structlog

MAX_BATCH = 100  # calls in one transaction

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _PendingCall[Q, A]:
    request: Q
    results: list[A] | None = None  # holds one result once the batch has run


class GroupCommitter[Q, A]:
    """
    Batches the calls of many threads; a call that arrives while a batch runs joins the next one.

    A single caller never waits for others. When a batch fails, each of its calls is retried alone, so that no caller
    gets another caller's error.
    """

    def __init__(self, run_batch: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        """Take the function that runs a batch: results in the order of the requests, all committed or none."""
        self._run_batch = run_batch
        self._pending: deque[_PendingCall[Q, A]] = deque()
        self._turn = Lock()

    def call(self, request: Q) -> A:
        """Return the result for this request; raises what the function raises."""
        call: _PendingCall[Q, A] = _PendingCall(request)
        self._pending.append(call)
        with self._turn:
            while call in self._pending:
                self._run_next_batch()
        if call.results is None:
            call.results = list(self._run_batch([call.request]))
        return call.results[0]

    @property
    def pending(self) -> int:
        """How many calls wait for the next batch."""
        return len(self._pending)

    def _run_next_batch(self) -> None:
        calls = [self._pending.popleft() for _ in range(min(len(self._pending), MAX_BATCH))]
        if len(calls) == 1:
            calls[0].results = list(self._run_batch([calls[0].request]))
            return
        try:
            results = self._run_batch([call.request for call in calls])
        except Exception as error:  # noqa: BLE001 - whatever it is, each call is retried alone and gets its own error
            log.warning("webhook.batch_failed", calls=len(calls), error=type(error).__name__)
            return
        for call, result in zip(calls, results, strict=True):
            call.results = [result]
