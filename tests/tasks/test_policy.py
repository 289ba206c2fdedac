"""Waits between attempts: a table of cases, and the laws that hold for all of them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.tasks.policy import Exponential, Fixed, Listed, Policy

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("backoff", "attempt", "wait"),
    [
        (Fixed(5 * SECOND), 1, 5),
        (Fixed(5 * SECOND), 9, 5),
        (Exponential(SECOND, jitter=0), 1, 1),  # 1 * 2^0
        (Exponential(SECOND, jitter=0), 4, 8),  # 1 * 2^3
        (Exponential(SECOND, cap=5 * SECOND, jitter=0), 4, 5),  # 8, cut to the cap
        (Exponential(10 * SECOND, jitter=0.5, chance=lambda: 0.0), 1, 5),  # 10 * (1 - 0.5)
        (Exponential(10 * SECOND, jitter=0.5, chance=lambda: 0.75), 1, 12.5),  # 10 * (1 + 0.5 * 0.5)
        (Listed((SECOND, 3 * SECOND)), 2, 3),
        (Listed((SECOND, 3 * SECOND)), 3, 3),  # the last one serves all that follow
    ],
)
def test_the_wait_after_an_attempt(backoff: Fixed | Exponential | Listed, attempt: int, wait: float) -> None:
    assert backoff.delay(attempt) == timedelta(seconds=wait)


@given(
    base=st.floats(0.001, 3600),
    cap=st.floats(0.001, 86_400),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
    attempt=st.integers(1, 10_000),
)
def test_exponential_stays_between_zero_and_its_cap(
    base: float, cap: float, jitter: float, chance: float, attempt: int
) -> None:
    backoff = Exponential(timedelta(seconds=base), timedelta(seconds=cap), jitter, lambda: chance)
    assert timedelta(0) <= backoff.delay(attempt) <= timedelta(seconds=cap)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Policy(max_attempts=0), "at least 1"),
        (lambda: Policy(soft_limit=SECOND, hard_limit=SECOND), "shorter than hard_limit"),
        (lambda: Listed(()), "at least one wait"),
    ],
)
def test_a_policy_without_meaning_is_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]  # a table of constructors
