"""Group commit: which calls share a transaction, and who gets which error."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest

from taskyard.database.group_commit import MAX_BATCH, GroupCommitter
from tests.waiting import wait_for


class Doubler:
    """Returns doubles; its first batch waits to be released; negative numbers make a batch fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.has_begun, self.released = Event(), Event()

    def run(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        if len(self.batches) == 1:
            self.has_begun.set()
            assert self.released.wait(20)
        if bad := [number for number in numbers if number < 0]:
            raise ValueError(bad[0])
        return [number * 2 for number in numbers]


@contextmanager
def called_concurrently(doubler: Doubler, numbers: Sequence[int]) -> Iterator[list[object]]:
    """Call with 0 alone, and with all numbers while its batch runs; gives the results, or a failed call's exception."""
    committer = GroupCommitter(doubler.run)
    results: list[object] = []
    with ThreadPoolExecutor(len(numbers) + 1) as pool:
        first = pool.submit(committer.call, 0)
        assert doubler.has_begun.wait(20)
        others = [pool.submit(committer.call, number) for number in numbers]
        wait_for(lambda: committer.pending == len(numbers), 20, "all others wait")
        doubler.released.set()
        assert first.result(20) == 0
        results += [other.exception(20) or other.result() for other in others]
    yield results


def test_calls_that_arrive_while_a_batch_runs_share_the_next_one() -> None:
    doubler = Doubler()

    with called_concurrently(doubler, [1, 2, 3, 4, 5]) as results:
        assert results == [2, 4, 6, 8, 10]

    assert [sorted(numbers) for numbers in doubler.batches] == [[0], [1, 2, 3, 4, 5]]


def test_a_batch_has_a_limit_and_the_rest_comes_next() -> None:
    doubler = Doubler()

    with called_concurrently(doubler, range(1, MAX_BATCH + 6)) as results:
        assert results == [number * 2 for number in range(1, MAX_BATCH + 6)]

    assert [len(numbers) for numbers in doubler.batches] == [1, MAX_BATCH, 5]


def test_one_bad_request_fails_alone() -> None:
    doubler = Doubler()

    with called_concurrently(doubler, [1, -7, 3]) as results:
        assert (results[0], results[2]) == (2, 6)
        assert isinstance(results[1], ValueError)
        assert results[1].args == (-7,)

    assert len(doubler.batches) == 5, "the first, the one that failed, and each of its three alone"


def test_the_error_of_a_single_call_reaches_its_caller_and_nobody_waits_for_it() -> None:
    doubler = Doubler()
    doubler.released.set()
    committer = GroupCommitter(doubler.run)

    with pytest.raises(ValueError, match="-1"):
        committer.call(-1)

    assert committer.call(4) == 8
    assert doubler.batches == [[-1], [4]]
