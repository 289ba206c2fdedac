"""Handlers that end in odd ways: no message is stuck, no slot is lost, and the worker goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo

from taskyard.pools.asyncio_job import AsyncioJob
from taskyard.pools.asyncio_pool import MOST_THREADS
from taskyard.pools.coroutine_bridge import CoroutineControl, HandlerCancelledError, drive
from tests.pools.app import nap
from tests.pools.odd_errors_app import STARTS, ask_again, child_throws, crowd, occupy, replace, resist, throw
from tests.pools.pool_platform import LIMIT, POOLS, PoolPlatform
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)
ODD = "tests.pools.odd_errors_app"


@pytest.mark.parametrize("pool", POOLS)
def test_whatever_they_raise_is_a_dead_letter_and_the_worker_goes_on(platform: PoolPlatform, pool: str) -> None:
    """Celery ends a worker for a MemoryError, asyncio a loop for a SystemExit; its own CancelledError is no end."""
    worker = platform.worker(pool, 4, module=ODD)
    tried = {throw.delay(label=kind).id: "exhausted" for kind in ("cancel", "memory")}
    tried[child_throws.delay(label="cancel").id] = "exhausted"
    lost = {each.delay(label="exit").id: "worker_lost" for each in (throw, child_throws)}
    platform.wait_dead_letters(len(tried) + len(lost))
    assert dict(platform.dead_letters()) == tried | lost
    nap.delay(label="after")
    assert platform.wait_notes("end") == ["after"]
    platform.wait_done()
    assert worker.is_running


def test_a_handler_that_ends_its_own_greenlet_is_a_dead_letter(platform: PoolPlatform) -> None:
    platform.worker(slots=1, module=ODD)
    run = throw.delay(label="greenlet")
    platform.wait_dead_letters(1)
    assert platform.dead_letters() == [(run.id, "exhausted")]
    platform.wait_done()


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_celerys_words_for_another_attempt_and_for_another_task_run_nothing_twice(
    platform: PoolPlatform, pool: str
) -> None:
    """Celery sends a second message for each; beside one that came back, too, they grew without an end."""
    platform.worker(pool, 4, module=ODD)
    run = ask_again.delay(label="again")
    replace.delay(label="replaced")
    platform.wait_dead_letters(1)
    platform.wait_done()
    assert platform.dead_letters() == [(run.id, "exhausted")]
    assert sorted(platform.notes("try")) == ["again", "again", "replaced"]
    assert platform.notes("end") == ["instead"]


def test_the_soft_limit_ends_the_tasks_of_a_group(platform: PoolPlatform) -> None:
    """A group that hears of another error than a cancellation leaves its tasks running, or hides the error."""
    platform.worker(module=ODD)
    for place in ("inside", "end"):
        crowd.delay(label=place)
    assert sorted(platform.wait_notes("soft", 2)) == ["end", "inside"]
    assert sorted(platform.wait_notes("child cancelled", 2)) == ["end", "inside"]
    platform.wait_done()


def test_the_slot_of_a_coroutine_that_swallows_its_cancellation_is_free_for_others(platform: PoolPlatform) -> None:
    worker = platform.worker(slots=1, module=ODD)
    run = resist.delay(label="stubborn")
    nap.delay(label="next")
    platform.wait_notes("start")
    run.revoke(terminate=True)
    assert platform.wait_notes("end") == ["next"]
    assert platform.notes("swallowed") == ["stubborn"]
    assert "odd.resist continues though it was cancelled" in worker.tail()
    platform.records.set("go", 1)
    platform.wait_done()


def test_a_def_that_waits_for_a_thread_has_not_started_and_goes_back_at_once(platform: PoolPlatform) -> None:
    worker = platform.worker(slots=MOST_THREADS + 10, module=ODD)
    for number in range(MOST_THREADS + 5):
        occupy.delay(label=str(number))
    platform.wait_notes("start", MOST_THREADS)
    worker.term()
    wait_for(lambda: platform.control.counts("celery").waiting == 5, LIMIT, "five are back while the others run")
    stays_true(lambda: worker.is_running, 0.5, "it waits for the others")
    platform.records.set("go", 1)
    assert worker.wait_ended(LIMIT) == 0
    assert len(platform.notes("end")) == len(platform.notes("start")) == MOST_THREADS
    assert platform.control.counts("celery").active == 0


def test_a_soft_limit_does_not_disturb_what_comes_after_the_handler() -> None:
    """Its last words are sent while the tracer still runs: a limit then would try a run again that is done."""

    async def handle() -> str:
        await asyncio.sleep(0)
        return "done"

    async def trace() -> str:
        task, limits = asyncio.current_task(), CoroutineControl(1)
        assert task is not None
        value: str = await drive(handle(), limits)
        limits.interrupt(task)
        await asyncio.sleep(0)
        return value

    assert asyncio.run(trace()) == "done"


def test_the_end_counts_where_it_comes_together_with_the_soft_limit() -> None:
    async def catch() -> None:
        await asyncio.sleep(60)

    async def both(
        first: Callable[[CoroutineControl, Any], None], second: Callable[[CoroutineControl, Any], None]
    ) -> None:
        limits = CoroutineControl(1)
        task = asyncio.create_task(drive(catch(), limits))
        await asyncio.sleep(0)
        first(limits, task)
        second(limits, task)
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(both(CoroutineControl.interrupt, CoroutineControl.cancel))
    asyncio.run(both(CoroutineControl.cancel, CoroutineControl.interrupt))


def test_a_cancellation_of_its_own_is_a_failure() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(HandlerCancelledError):
        asyncio.run(drive(cancel_itself(), CoroutineControl()))


def test_what_cannot_be_told_as_it_was_is_told_as_an_error() -> None:
    """Else nobody would end the message: the result's server may be away when a limit passes."""
    told: list[ExceptionInfo] = []

    def refuse(*_: object) -> None:
        raise ConnectionError("away")

    async def look(tell: Callable[[AsyncioJob], None]) -> None:
        options = {"callback": refuse, "timeout_callback": refuse, "error_callback": told.append}
        job = AsyncioJob(print, (), {}, timeout=1, on_terminate=print, **options)
        job.task = asyncio.create_task(asyncio.sleep(60))
        tell(job)
        job.tell("once is enough")
        job.task.cancel()

    asyncio.run(look(lambda job: job.tell("done")))
    asyncio.run(look(AsyncioJob.pass_hard_limit))
    assert ["ConnectionError: away" in str(info.traceback) for info in told] == [True, True]


def test_what_a_process_has_begun_before_it_could_tell_is_not_given_back(platform: PoolPlatform) -> None:
    """It would run a second time, elsewhere, while it runs here."""
    for number in range(STARTS):
        occupy.delay(label=str(number))
    worker = platform.worker("prefork", STARTS, module="tests.pools.abrupt_exit_app")
    platform.wait_notes("start", STARTS)
    wait_for(lambda: "shutdown (MainProcess)" in worker.tail(), LIMIT, "the signal has come")
    stays_true(lambda: platform.control.counts("celery").waiting == 0, 1, "none is given back")
    platform.records.set("go", 1)
    assert worker.wait_ended(LIMIT) == 0
    assert len(platform.notes("end")) == STARTS
    assert platform.control.counts("celery").active == 0
