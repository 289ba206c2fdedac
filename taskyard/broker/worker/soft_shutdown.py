"""Soft shutdown: return what has not started, let running tasks finish for a while, then return the rest."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import billiard
import redis
from celery.signals import worker_shutting_down
from celery.worker import state

CANCEL_SECONDS = 2.0  # for coroutines that are cancelled at the end of the shutdown's time
END_SECONDS = 2.0  # beyond the time: for a pool of processes and the connection to close, and for the last words
CLOSE_SECONDS = 5.0  # within the time, when nothing runs any more: as above
LOOK_EVERY = 0.05  # seconds, while there is no loop to turn
LATE_ENDS = 0.5  # seconds to read what the pool's processes have written before they died
log = logging.getLogger(__name__)


class SoftShutdown:
    """
    The shutdown of one consumer, from the signal on.

    Celery sleeps through a soft shutdown inside the signal handler: no result is read, so tasks that end in this time
    run again elsewhere. Here the loop goes on until the tasks have ended or the time is over.
    """

    def __init__(self, consumer: Any) -> None:
        """`consumer` is a `taskyard.broker.worker.consumer.Consumer` with its controller."""
        self._consumer = consumer
        self._celerys_wait = consumer.controller.wait_for_soft_shutdown
        self._ends_at: float | None = None  # monotonic seconds; None: not a soft or cold shutdown
        self._is_first_cut = True
        self._wake_sender = threading.Event()  # the time ends early, or nothing runs any more
        self._is_over = False
        self._alone_since: float | None = None  # monotonic seconds; None: a process of the pool lives
        consumer.controller.wait_for_soft_shutdown = self.begin
        worker_shutting_down.connect(self._on_signal, sender=consumer.hostname)

    @property
    def _can_stop_tasks(self) -> bool:
        return bool(self._consumer.pool.uses_semaphore)  # prefork: they run in other processes

    def begin(self) -> None:
        """Start the time of a soft shutdown; called inside the signal handler, so it waits for nothing."""
        if self._has_taken_nothing():
            self._ends_at = monotonic() + CLOSE_SECONDS
        elif self._consumer.hub is None or not self._consumer.leases:  # a green pool, or stock kombu
            self._celerys_wait()
        else:
            self._ends_at = monotonic() + self._consumer.app.conf.worker_soft_shutdown_timeout
            self._consumer.pool.stop = _nothing  # Celery would join the pool inside the signal handler

    def cut(self) -> bool:
        """End the time now, at the second signal; False when this is no shutdown of ours."""
        if self._ends_at is not None and not self._is_first_cut:
            self._ends_at = monotonic()
            self._wake_sender.set()
        self._is_first_cut = False
        return self._ends_at is not None

    def wait(self) -> None:
        """Turn the loop until nothing runs or the time is over; then stop what still runs, if the pool can."""
        if self._ends_at is None:
            return
        code, state.should_terminate = state.should_terminate, None  # time limits hold as before
        try:
            self._turn_loop()
        finally:
            state.should_terminate = code
        self._is_over = True
        self._wake_sender.set()
        vars(self._consumer.pool).pop("stop", None)
        if self._can_stop_tasks:
            self._consumer.stop_running_tasks()

    def _turn_loop(self) -> None:
        hub = self._consumer.hub
        loop = hub.create_loop()
        while self._is_at_work() and (not self._can_stop_tasks or monotonic() < (self._ends_at or 0)):
            try:
                next(loop)
            except StopIteration:
                loop = hub.create_loop()
            except self._consumer.connection_errors:
                self._wait_without_loop()
                return

    def _wait_without_loop(self) -> None:
        """The broker is away, and may come back; `_watch` ends the wait when the time is over."""
        if self._can_stop_tasks:  # only the loop reads how they end
            log.warning("the broker went away during the shutdown; running tasks will run again elsewhere")
            self._ends_at = monotonic()
            return
        log.warning("the broker went away during the shutdown; running tasks may finish, and report if it comes back")
        while self._is_at_work() or not all(leases.is_flushed() for leases in self._consumer.leases):
            sleep(LOOK_EVERY)

    def _has_taken_nothing(self) -> bool:
        """It still looks for its broker, or for other workers."""
        return self._consumer.task_consumer is None and not self._consumer.leases and not state.active_requests

    def _is_at_work(self) -> bool:
        if self._can_stop_tasks and self._has_lost_all_processes():
            return False
        return bool(state.active_requests) or any(leases.dispatched for leases in self._consumer.leases)

    def _has_lost_all_processes(self) -> bool:
        """The signal may have gone to them, too: to the whole process group. Nobody else looks while a worker ends."""
        if billiard.active_children():
            self._alone_since = None
            return False
        self._alone_since = self._alone_since or monotonic()
        return monotonic() >= self._alone_since + LATE_ENDS

    def _on_signal(self, **_: Any) -> None:
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()  # the loop may be busy with a task

    def _watch(self) -> None:
        if not self._can_stop_tasks:
            self._consumer.return_unstarted()
        if self._ends_at is None:
            return
        self._wake_sender.wait(max(0.0, self._ends_at - monotonic()))
        if self._can_stop_tasks or self._is_over:
            self._consumer.hub.call_soon(_nothing)  # wakes the loop
            left = min(CLOSE_SECONDS, max(0.0, self._ends_at - monotonic()))
            sleep(left + END_SECONDS)  # a broker that is silent or a process that ignores SIGTERM can hold up the rest
        self._leave()

    def _leave(self) -> None:
        """No thread can be stopped from outside: return what still runs, and end the process."""
        log.warning("soft shutdown timed out: running tasks are returned to their queues")
        try:
            self._return_all()
        finally:
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)

    def _return_all(self) -> None:
        for pid in [process.pid for process in billiard.active_children() if process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self._consumer.pool, "abandon"):  # the asyncio pool cancels its coroutines
            self._consumer.pool.abandon(CANCEL_SECONDS)
        self._consumer.return_all()
        sending = threading.Thread(target=flush_leases, args=(self._consumer.leases,), daemon=True)
        sending.start()
        sending.join(END_SECONDS)  # a broker that is silent must not keep us
        controller = self._consumer.controller
        if getattr(controller, "pidlock", None):
            controller.pidlock.release()


def _nothing() -> None:
    pass


def flush_leases(all_leases: list[Any]) -> None:
    """Flush outcomes; without a broker the messages come back when their leases end."""
    for leases in all_leases:
        try:
            leases.flush_and_wait()
        except (redis.RedisError, OSError) as error:
            log.warning("messages come back when their leases end, the broker is away: %s", error)
