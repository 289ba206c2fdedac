"""Waiting for a coroutine without a pool's loop: what it raises, and what a signal raises, arrives where it belongs."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from taskyard.pools.coroutine_bridge import finish


@pytest.fixture
def soft_limit() -> Iterator[None]:
    """A signal that raises in 0.2 s, as prefork's soft limit does."""

    def strike(_number: int, _frame: FrameType | None) -> None:
        raise SoftTimeLimitExceeded(1)

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(60, method="thread")  # the other method needs the same signal
@pytest.mark.usefixtures("soft_limit")
def test_a_soft_limit_that_comes_as_a_signal_is_raised_inside_the_coroutine() -> None:
    async def overstay() -> str:
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            await asyncio.sleep(0.01)
            return "tidied up"
        return "too late"

    assert finish(overstay()) == "tidied up"


def test_what_the_coroutine_raises_and_cancels_stays_its_own() -> None:
    async def give_up_waiting() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        except TimeoutError:
            return "its own timeout"
        return "none"

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("it")

    assert finish(give_up_waiting()) == "its own timeout"
    with pytest.raises(KeyError, match="it"):
        finish(fail())
