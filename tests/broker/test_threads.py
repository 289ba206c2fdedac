"""The threads that take the place of the executor of Celery's pool of threads."""

import threading

from broker.threads import Threads

LIMIT = 10.0  # seconds


def test_a_job_that_blocks_holds_up_nothing_while_a_thread_is_free() -> None:
    threads, gate, done = Threads(2), threading.Event(), threading.Event()
    threads.run(lambda: gate.wait(LIMIT))
    threads.run(done.set)
    assert done.wait(LIMIT)
    gate.set()
    threads.shutdown()


def test_a_job_that_raises_ends_no_thread() -> None:
    threads, done = Threads(1), threading.Event()
    threads.run(_fail)
    threads.run(done.set)
    assert done.wait(LIMIT)
    threads.shutdown()


def test_a_stop_waits_for_what_began_and_drops_what_did_not() -> None:
    threads, begun, gate, ended = Threads(1), threading.Event(), threading.Event(), []

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


def test_a_call_of_somebody_else_has_a_future() -> None:
    threads = Threads(1)
    assert threads.submit(sum, [1, 2]).result(LIMIT) == 3
    assert isinstance(threads.submit(_fail).exception(LIMIT), ValueError)
    threads.shutdown()


def _fail() -> None:
    raise ValueError("as it should")
