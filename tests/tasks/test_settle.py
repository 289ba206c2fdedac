"""The outcome table, row by row: what a handler does decides what is raised towards the worker."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskyard.broker.protocol.header import HEADER
from taskyard.broker.worker.redelivery import Redeliver
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import InvalidPayloadError, PermanentError, RetryAfter, Snooze
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import LONGEST_DELAY, Fixed, Policy
from taskyard.tasks.sending import find_task
from taskyard.tasks.settle import settle


class Count(Payload):
    """How many."""

    number: int


class Scripted:
    """A handler that does what the test says."""

    def __init__(self) -> None:
        self.does: Callable[[Count], Any] = lambda payload: payload.number

    def __call__(self, payload: Count) -> Any:
        return self.does(payload)


handler = Scripted()
POLICY = Policy(max_attempts=3, backoff=Fixed(timedelta(seconds=7)))


@task("tests.settle", Count, queue=MAINTENANCE, policy=POLICY)
def scripted(payload: Count) -> Any:
    """Do what the test says."""
    return handler(payload)


def raising(error: Exception) -> Callable[[Count], Any]:
    def do(_payload: Count) -> Any:
        raise error

    return do


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Settle one execution, as attempt number ``attempt`` of a message with these facts."""
    subject = find_task("tests.settle")

    def once(attempt: int = 1, args: tuple[Any, ...] = (), **facts: Any) -> Any:
        subject.push_request(**{HEADER: {"attempt": attempt, **facts}})
        try:
            return settle(subject, args, {"number": 4})
        finally:
            subject.pop_request()

    yield once
    handler.does = lambda payload: payload.number


def test_a_handler_that_returns_is_done(run: Callable[..., Any]) -> None:
    assert run() == 4


def test_a_result_becomes_json(run: Callable[..., Any]) -> None:
    handler.does = lambda payload: payload
    assert run() == {"number": 4}


@pytest.mark.parametrize("attempt", [1, 2])
def test_any_exception_comes_again_after_the_backoff(run: Callable[..., Any], attempt: int) -> None:
    handler.does = raising(KeyError("x"))
    with pytest.raises(Redeliver) as caught:
        run(attempt)
    assert (caught.value.delay, caught.value.uses_attempt) == (7, True)


def test_the_last_attempt_raises_the_error_itself(run: Callable[..., Any]) -> None:
    """max_attempts counts executions in total: the third of three is the last."""
    handler.does = raising(KeyError("x"))
    with pytest.raises(KeyError):
        run(3)


def test_the_callers_max_attempts_wins_over_the_policy(run: Callable[..., Any]) -> None:
    handler.does = raising(KeyError("x"))
    with pytest.raises(KeyError):
        run(1, max_attempts=1)
    with pytest.raises(Redeliver):
        run(3, max_attempts=4)


def test_retry_after_sets_the_delay_and_uses_an_attempt(run: Callable[..., Any]) -> None:
    handler.does = raising(RetryAfter(timedelta(seconds=90)))
    with pytest.raises(Redeliver) as caught:
        run(2)
    assert (caught.value.delay, caught.value.uses_attempt) == (90, True)
    with pytest.raises(RetryAfter):
        run(3)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ({"countdown": 90}, 90, 90),
        ({"eta": lambda: datetime.now(UTC) + timedelta(hours=1)}, 3000, 3600),
        ({"eta": lambda: datetime.now() + timedelta(days=2)}, 86_400, 3 * 86_400),  # noqa: DTZ005 - without a zone it is UTC
        ({"eta": datetime(2020, 1, 1, tzinfo=UTC)}, 0, 0),
        ({"exc": OSError("again")}, 7, 7),
        ({"args": None, "kwargs": None, "throw": True, "max_retries": None}, 7, 7),
    ],
)
def test_retry_in_celerys_words_says_when(
    run: Callable[..., Any], asked: dict[str, Any], least: float, most: float
) -> None:
    now = {name: value() if callable(value) else value for name, value in asked.items()}
    handler.does = lambda _: find_task("tests.settle").retry(**now)
    with pytest.raises(Redeliver) as caught:
        run(1)
    assert least <= caught.value.delay <= most


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"max_retries": 5}, "takes no max_retries here.*max_attempts in the task's Policy"),
        ({"throw": False}, "takes no throw here.*raise RetryAfter"),
        ({"args": (1,)}, "takes no args here.*enqueue a new run"),
        ({"kwargs": {"number": 5}}, "takes no kwargs here.*enqueue a new run"),
        ({"queue": "slow"}, "takes no queue here.*enqueue a new run"),
        ({"countdown": math.nan}, "countdown nan: use a number of seconds"),
        ({"eta": 5.0}, "use a datetime"),
        ({"countdown": 1, "eta": datetime(2020, 1, 1, tzinfo=UTC)}, "exclude each other"),
    ],
)
def test_what_retry_cannot_do_is_told_with_what_to_do_instead(
    run: Callable[..., Any], asked: dict[str, Any], says: str
) -> None:
    handler.does = lambda _: find_task("tests.settle").retry(**asked)
    with pytest.raises((TypeError, ValueError), match=says):
        run(3)  # the last attempt: the error is the dead letter's


def test_an_outside_delay_is_bounded(run: Callable[..., Any]) -> None:
    handler.does = raising(RetryAfter(timedelta(days=4000)))
    with pytest.raises(Redeliver) as caught:
        run()
    assert caught.value.delay == LONGEST_DELAY.total_seconds()


def test_snooze_uses_no_attempt_however_often(run: Callable[..., Any]) -> None:
    handler.does = raising(Snooze(timedelta(seconds=1)))
    with pytest.raises(Redeliver) as caught:
        run(3)
    assert (caught.value.delay, caught.value.uses_attempt) == (1, False)


def test_a_permanent_error_is_final_at_once(run: Callable[..., Any]) -> None:
    handler.does = raising(PermanentError("gone"))
    with pytest.raises(PermanentError):
        run(1)


def test_positional_arguments_are_malformed(run: Callable[..., Any]) -> None:
    with pytest.raises(InvalidPayloadError, match="keyword arguments only"):
        run(1, args=(4,))


@pytest.mark.parametrize("outcome", [RetryAfter, Snooze])
def test_a_delay_in_the_past_is_refused(outcome: type[RetryAfter | Snooze]) -> None:
    with pytest.raises(ValueError, match="lies in the past"):
        outcome(timedelta(seconds=-1))
