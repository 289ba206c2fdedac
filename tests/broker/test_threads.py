"""The threads that take the place of the executor of Celery's pool of threads."""

import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from taskyard.broker.worker.thread_pool import WorkerThreads
from tests.waiting import wait_for
from tests.workers import ROOT

LIMIT = 10.0  # seconds


def test_a_job_that_blocks_holds_up_nothing_while_a_thread_is_free() -> None:
    threads, gate, done = WorkerThreads(2), threading.Event(), threading.Event()
    threads.run(lambda: gate.wait(LIMIT))
    threads.run(done.set)
    assert done.wait(LIMIT)
    gate.set()
    threads.shutdown()


def test_a_job_that_raises_ends_no_thread() -> None:
    threads, done = WorkerThreads(1), threading.Event()
    threads.run(_fail)
    threads.run(done.set)
    assert done.wait(LIMIT)
    threads.shutdown()


def test_a_stop_waits_for_what_began_and_drops_what_did_not() -> None:
    threads, begun, gate, ended = WorkerThreads(1), threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        gate.wait(LIMIT)
        ended.append("first")

    threads.run(first)
    threads.run(lambda: ended.append("second"))
    assert begun.wait(LIMIT)
    threading.Timer(0.05, gate.set).start()
    threads.shutdown(cancel_futures=True)
    assert ended == ["first"]


def test_every_slot_takes_jobs_and_there_are_no_more_slots_than_asked_for() -> None:
    threads, gate = WorkerThreads(3), threading.Barrier(4)
    ran: list[int] = []

    def job(number: int) -> None:
        gate.wait(LIMIT)
        ran.append(number)

    for number in range(9):
        threads.run(partial(job, number))
    for _ in range(3):
        wait_for(lambda: gate.n_waiting == 3, LIMIT, "three jobs run at once")
        gate.wait(LIMIT)
    threads.shutdown()
    assert sorted(ran) == list(range(9))  # each once
    assert len(threads._threads) == 3


def test_slots_that_raised_all_take_jobs_again() -> None:
    threads, gate = WorkerThreads(3), threading.Barrier(4)
    for _ in range(9):
        threads.run(_leave)
    for _ in range(3):
        threads.run(lambda: gate.wait(LIMIT))
    gate.wait(LIMIT)
    threads.shutdown()


def test_a_stop_without_cancelling_runs_what_waits() -> None:
    threads, ran = WorkerThreads(1), list[int]()
    for number in range(5):
        threads.run(partial(ran.append, number))
    threads.shutdown()
    assert ran == [0, 1, 2, 3, 4]


def test_a_stop_need_not_wait_and_all_threads_end_after_it() -> None:
    threads, gate = WorkerThreads(3), threading.Event()
    for _ in range(3):
        threads.run(lambda: gate.wait(LIMIT))
    threads.shutdown(wait=False)
    assert all(thread.is_alive() for thread in threads._threads)
    gate.set()
    wait_for(lambda: not any(thread.is_alive() for thread in threads._threads), LIMIT, "all threads end")


def test_a_stopped_pool_refuses_jobs() -> None:
    threads = WorkerThreads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="stopped"):
        threads.run(_fail)


def test_an_idle_thread_keeps_nothing_of_its_last_job() -> None:
    """A job holds its message and the arguments of the task."""

    class Job:
        def __call__(self) -> None:
            pass

    threads, job = WorkerThreads(1), Job()
    kept = weakref.ref(job)
    threads.run(job)
    del job
    wait_for(lambda: kept() is None, LIMIT, "the job is forgotten")
    threads.shutdown()


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_process_ends_whose_pool_nobody_stopped(is_busy: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What its threads run comes to its end first, and so does what waits."""
    job = "lambda: threading.main_thread().join() or print('done', flush=True)" if is_busy else "lambda: None"
    begin = "import threading; from taskyard.broker.worker.thread_pool import WorkerThreads"
    code = f"{begin}; run = WorkerThreads(1).run; [run({job}) for _ in range(50)]"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split() == ["done"] * (50 if is_busy else 0)


def test_a_cancelled_call_does_not_run() -> None:
    threads, gate, ran = WorkerThreads(1), threading.Event(), list[str]()
    threads.run(lambda: gate.wait(LIMIT))
    call: Future[Any] = threads.submit(ran.append, "cancelled")
    assert call.cancel()
    gate.set()
    threads.shutdown()
    assert ran == []


def test_a_call_of_somebody_else_has_a_future() -> None:
    threads = WorkerThreads(1)
    assert threads.submit(sum, [1, 2]).result(LIMIT) == 3
    assert isinstance(threads.submit(_fail).exception(LIMIT), ValueError)
    threads.shutdown()


def _fail() -> None:
    raise ValueError("as it should")


def _leave() -> None:
    raise SystemExit(3)
