"""Group commit: who shares a transaction, and whose error is whose."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest

from taskyard.webhooks.delivery.group_commit import MOST, Together
from tests.waiting import wait_for


class Committer:
    """Answers with the double; its first round waits to be released; negative numbers make a round fail."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.has_begun, self.released = Event(), Event()

    def answer(self, numbers: Sequence[int]) -> list[int]:
        self.rounds.append(list(numbers))
        if len(self.rounds) == 1:
            self.has_begun.set()
            assert self.released.wait(20)
        if bad := [number for number in numbers if number < 0]:
            raise ValueError(bad[0])
        return [number * 2 for number in numbers]


@contextmanager
def asked_together(committer: Committer, numbers: Sequence[int]) -> Iterator[list[object]]:
    """Ask 0 alone, and all numbers while its round runs; gives the answers, an exception for a failed one."""
    together = Together(committer.answer)
    answers: list[object] = []
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(together.ask, 0)
        assert committer.has_begun.wait(20)
        others = [pool.submit(together.ask, number) for number in numbers]
        wait_for(lambda: together.waiting == len(numbers), 20, "all others wait")
        committer.released.set()
        assert first.result(20) == 0
        answers += [other.exception(20) or other.result() for other in others]
    yield answers


def test_who_comes_while_a_round_runs_shares_the_next_one() -> None:
    committer = Committer()

    with asked_together(committer, [1, 2, 3, 4, 5]) as answers:
        assert answers == [2, 4, 6, 8, 10]

    assert [sorted(numbers) for numbers in committer.rounds] == [[0], [1, 2, 3, 4, 5]]


def test_a_round_has_a_limit_and_the_rest_comes_next() -> None:
    committer = Committer()

    with asked_together(committer, range(1, MOST + 6)) as answers:
        assert answers == [number * 2 for number in range(1, MOST + 6)]

    assert [len(numbers) for numbers in committer.rounds] == [1, MOST, 5]


def test_one_bad_question_fails_alone() -> None:
    committer = Committer()

    with asked_together(committer, [1, -7, 3]) as answers:
        assert (answers[0], answers[2]) == (2, 6)
        assert isinstance(answers[1], ValueError)
        assert answers[1].args == (-7,)

    assert len(committer.rounds) == 5, "the first, the one that failed, and each of its three alone"


def test_a_lone_error_reaches_its_caller_and_nobody_waits_for_it() -> None:
    committer = Committer()
    committer.released.set()
    together = Together(committer.answer)

    with pytest.raises(ValueError, match="-1"):
        together.ask(-1)

    assert together.ask(4) == 8
    assert committer.rounds == [[-1], [4]]
