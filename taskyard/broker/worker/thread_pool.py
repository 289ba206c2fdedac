"""The executor of Celery's thread pool: a job costs one queue entry and no future."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any

from celery.utils.log import get_logger

log = get_logger(__name__)

type AsyncioJob = Callable[[], object]


class WorkerThreads(Executor):
    """
    Takes the place of the pool's `ThreadPoolExecutor` (`TaskPool.executor`).

    Up to `limit` threads, each started by a job that is handed over. The process waits for what they run when it ends.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[AsyncioJob | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()  # Celery's `inspect stats` counts them
        self._is_over = False

    def run(self, job: AsyncioJob) -> None:
        """
        Hand over a job, which must not raise.

        Raises:
            RuntimeError: The pool was stopped.
        """
        if self._is_over:
            raise RuntimeError("the pool of threads was stopped")
        self._jobs.put(job)
        if len(self._threads) < self._limit:
            self._start_one()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand over a call; see `concurrent.futures.Executor`."""
        future: Future[Any] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - who asks for the result learns it
                    future.set_exception(error)

        self.run(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        """Let all threads end after their jobs; with `cancel_futures` after the jobs that they have begun."""
        self._is_over = True
        try:
            while cancel_futures:
                self._jobs.get_nowait()
        except Empty:
            log.debug("nothing is left in the queue of the pool")
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _start_one(self) -> None:
        if not self._threads:
            threading.Thread(target=self._end_with_the_process, name="pool's end").start()
        thread = threading.Thread(target=self._turn, name=f"task-{len(self._threads)}")
        self._threads.add(thread)
        thread.start()

    def _turn(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException:
                log.exception("the pool could not tell how an execution ended")
            del job  # else an idle thread keeps the message

    def _end_with_the_process(self) -> None:
        """Python waits for threads before it runs anything that could end them."""
        threading.main_thread().join()
        if not self._is_over:
            self.shutdown(wait=False)
