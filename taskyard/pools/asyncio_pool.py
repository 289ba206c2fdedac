"""
A Celery pool for `async def` handlers: one event loop per worker process, threads beside it for `def` handlers.

    CELERY_CUSTOM_WORKER_POOL=taskyard.pools.asyncio_pool:TaskPool celery -A tasks worker -P custom -c 500

Celery's own tracer runs unchanged, in a greenlet on the loop's thread: when it comes to a coroutine, the greenlet
sleeps and the loop awaits it. `self.request` is right inside coroutines because Celery's stacks ask a context variable
who is running.
"""

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import celery._state
from celery.concurrency.base import BasePool
from celery.exceptions import TaskRevokedError, Terminated
from celery.utils.log import get_logger

from taskyard.pools.asyncio_job import AsyncioJob, current_job
from taskyard.pools.coroutine_bridge import TracerGreenlet, drive
from taskyard.pools.loop_lag import LoopLagMonitor

MOST_THREADS = 64  # for `def` handlers, however many slots there are
STUBBORN_AFTER = 5.0  # seconds that a cancelled coroutine gets to end before the log says so
log = get_logger(__name__)
_base: Any = BasePool  # its stubs are incomplete
_state: Any = celery._state  # noqa: SLF001 - Celery gives the stack of running tasks no other name
_tasks_that_run = _state._task_stack  # noqa: SLF001 - as above


class TaskPool(_base):  # type: ignore[misc]  # as above
    """`async def` tasks on a loop, with soft and hard limits and cancellation; `def` tasks in threads, without."""

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False
    limit: int  # slots

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop = _new_loop()
        self._threads = ThreadPoolExecutor(min(self.limit, MOST_THREADS), "task")
        self._running: dict[AsyncioJob, None] = {}
        self._pending: deque[AsyncioJob] = deque()
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._handed = self._taken = 0  # jobs: by Celery's thread, and by the loop's
        self._threads_free = asyncio.Semaphore(min(self.limit, MOST_THREADS))
        self._is_ending = False
        self._watch = LoopLagMonitor(self._loop, lambda: [job.name for job in self._running])
        self._thread = threading.Thread(target=self._turn, name="event loop", daemon=True)

    def on_start(self) -> None:
        """Start the loop."""
        for task in self.app.tasks.values():
            if task.request_stack is not None:
                task.request_stack.__ident_func__ = _who_runs
        _tasks_that_run.__ident_func__ = _who_runs
        self._thread.start()

    def on_stop(self) -> None:
        """Wait for all jobs, then end the loop."""
        self._is_idle.wait()
        self._end_loop()

    def on_terminate(self) -> None:
        """Cancel all jobs, then end the loop."""
        self.abandon(STUBBORN_AFTER)
        self._end_loop()

    def abandon(self, seconds: float) -> None:
        """Cancel all that runs without telling Celery, and wait so long for it to end; for other threads."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._abandon_all)
            self._is_idle.wait(seconds)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: Celery calls `Job.terminate` as well, which knows the job."""

    def grow(self, n: int = 1) -> None:
        """Add slots."""
        self.limit += n
        self._loop.call_soon_threadsafe(self._admit)

    def shrink(self, n: int = 1) -> None:
        """Remove slots; running tasks continue."""
        self.limit = max(1, self.limit - n)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> AsyncioJob:
        """Run it as soon as a slot is free."""
        job = AsyncioJob(target, args or (), kwargs or {}, **options, on_terminate=self._terminate_soon)
        self._handed += 1
        self._is_idle.clear()
        self._loop.call_soon_threadsafe(self._take, job)
        return job

    def _take(self, job: AsyncioJob) -> None:
        self._taken += 1
        self._pending.append(job)
        self._admit()

    def _admit(self) -> None:
        while self._pending and len(self._running) < self.limit:
            job = self._pending.popleft()
            self._running[job] = None
            job.task = self._loop.create_task(self._run(job))
            job.task.add_done_callback(partial(self._free, job))
        if not self._pending and not self._running and self._taken == self._handed:
            self._is_idle.set()

    def _free(self, job: AsyncioJob, task: asyncio.Task[None] | None = None) -> None:
        if task is not None and not task.cancelled() and task.exception() is not None:
            log.error("the pool could not report how %s ended", job.name, exc_info=task.exception())
        if job in self._running:
            del self._running[job]
            self._admit()

    async def _run(self, job: AsyncioJob) -> None:
        current_job.set(job)
        timers: list[asyncio.TimerHandle] = []
        try:
            if getattr(self.app.tasks.get(job.name), "is_async", False):
                job.accept(os.getpid())
                timers = self._timers(job)
                outcome = await self._trace(job)
            else:
                async with self._threads_free:  # until then it has not started: it can be revoked and given back
                    job.accept(os.getpid())
                    outcome = await self._in_thread(job)
        except TaskRevokedError:
            return  # it was given back or revoked while it waited
        except BaseException as error:  # noqa: BLE001 - the edge of the execution
            job.tell_error(Terminated("cancelled") if job.limits.is_cancelled else error)
        else:
            job.tell(outcome)
        finally:
            for timer in timers:
                timer.cancel()

    def _timers(self, job: AsyncioJob) -> list[asyncio.TimerHandle]:
        timers = []
        if job.limits.seconds:
            timers.append(self._loop.call_later(job.limits.seconds, job.pass_soft_limit))
        if job.hard:
            timers.append(self._loop.call_later(job.hard, self._pass_hard_limit, job))
        return timers

    async def _trace(self, job: AsyncioJob) -> Any:
        """Turn Celery's tracer until it is through; whenever it hands out a coroutine, await that."""
        tracer = TracerGreenlet(job.target)
        task = asyncio.current_task()
        tracer.gr_context = task.get_context() if task is not None else None
        answer = tracer.switch(*job.args, **job.kwargs)
        while not tracer.dead:
            try:
                value = await drive(answer, job.limits)
            except BaseException as error:  # noqa: BLE001 - the tracer decides what it means
                answer = tracer.throw(error)
            else:
                answer = tracer.switch(value)
        return answer

    async def _in_thread(self, job: AsyncioJob) -> Any:
        call = partial(contextvars.copy_context().run, job.target, *job.args, **job.kwargs)
        return await self._loop.run_in_executor(self._threads, call)

    def _terminate_soon(self, job: AsyncioJob) -> None:
        self._loop.call_soon_threadsafe(self._terminate, job)

    def _terminate(self, job: AsyncioJob) -> None:
        is_async = getattr(self.app.tasks.get(job.name), "is_async", False)
        if job.task is None or job.task.done() or not is_async:
            return  # before it starts Celery's request refuses it by itself; a thread cannot be stopped
        job.limits.cancel(job.task)
        self._loop.call_later(STUBBORN_AFTER, self._detach, job)

    def _pass_hard_limit(self, job: AsyncioJob) -> None:
        self._loop.call_later(STUBBORN_AFTER, self._detach, job)
        job.pass_hard_limit()

    def _detach(self, job: AsyncioJob) -> None:
        """Free the slot of a coroutine that swallows its cancellation."""
        if job in self._running:
            log.error("%s continues though it was cancelled: it catches CancelledError", job.name)
            job.tell_error(Terminated("cancelled"))
            self._free(job)

    def _abandon_all(self) -> None:
        self._pending.clear()
        for job in self._running:
            job.is_over = True
            if job.task is not None:
                job.limits.cancel(job.task)
        self._admit()

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._watch.start()
        while not self._is_ending:
            try:
                self._loop.run_forever()
            except BaseException:  # asyncio lets SystemExit in a task that a handler started end the loop
                log.exception("a task stopped the event loop; the others continue")
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _end_loop(self) -> None:
        self._is_ending = True
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STUBBORN_AFTER)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        longest = round(self._watch.longest, 3)
        return {**info, "running": len(self._running), "pending": len(self._pending), "longest-block": longest}


def _who_runs() -> Any:
    return current_job.get() or threading.get_ident()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - it is not there on every system
    except ImportError:
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made
