"""Group commit: calls that many threads make at the same time become one transaction."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import structlog

MOST = 100  # calls of one transaction

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Call[Q, A]:
    question: Q
    answers: list[A] | None = None  # one answer, once it is there


class Together[Q, A]:
    """
    Runs one function for the calls of many threads; a caller that comes while it runs waits for the next round.

    A lone caller waits for nobody. When a round fails, each of its callers tries alone, so that nobody gets another
    one's error.
    """

    def __init__(self, answer_all: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        """Take the function: answers in the order of the questions, all written or none."""
        self._answer_all = answer_all
        self._waiting: deque[_Call[Q, A]] = deque()
        self._turn = Lock()

    def ask(self, question: Q) -> A:
        """Return the answer to this question; raises what the function raises."""
        call: _Call[Q, A] = _Call(question)
        self._waiting.append(call)
        with self._turn:
            while call in self._waiting:
                self._run_round()
        if call.answers is None:
            call.answers = list(self._answer_all([question]))
        return call.answers[0]

    @property
    def waiting(self) -> int:
        """How many calls wait for the next round."""
        return len(self._waiting)

    def _run_round(self) -> None:
        calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST))]
        if len(calls) == 1:
            calls[0].answers = list(self._answer_all([calls[0].question]))
            return
        try:
            answers = self._answer_all([call.question for call in calls])
        except Exception as error:  # noqa: BLE001 - whatever it is, each tries alone and gets its own
            log.warning("webhook.round_failed", calls=len(calls), error=type(error).__name__)
            return
        for call, answer in zip(calls, answers, strict=True):
            call.answers = [answer]
