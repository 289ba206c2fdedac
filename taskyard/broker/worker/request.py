"""Celery's request class, which decides the outcome of each execution for the broker."""

from __future__ import annotations

import logging
import os
from time import monotonic
from typing import Any, Literal

from billiard.einfo import ExceptionInfo
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError, Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker import state

from taskyard.broker.protocol.header import BURY_TASK, HEADER
from taskyard.broker.protocol.outcomes import (
    INFRASTRUCTURE_ERRORS,
    Completed,
    DeadLettered,
    Outcome,
    Rescheduled,
    Returned,
    Stalled,
    cancellation_detail,
    detail,
    success_detail,
    task_rejection,
)
from taskyard.broker.scripts.shared_names import EventKind
from taskyard.broker.transport.qos import is_withdrawn, lease_of
from taskyard.broker.worker import fallback
from taskyard.broker.worker.expiry import ExpiringRequest
from taskyard.broker.worker.failures import LONGEST_TEXT, cause_of, failure_detail, reason_of
from taskyard.broker.worker.observers import TaskExecution, execution_observers, result_of
from taskyard.broker.worker.portable_errors import dead_letter_reason, error_text, use_portable_errors
from taskyard.broker.worker.redelivery import CancelledRun, Redeliver
from taskyard.broker.worker.start_detail import start_detail
from taskyard.pools.asyncio_job import info_of

log = logging.getLogger(__name__)
use_portable_errors()

CELERYS_HEADERS = frozenset(Context.__dict__) | {"lang", "task", "argsrepr", "kwargsrepr", "compression"}
DEAD_LETTER_PAUSE_MS = 30_000  # between tries to store a dead letter


class OutOfMemoryError(RuntimeError):
    """A task raised MemoryError."""


class Request(ExpiringRequest):
    """
    Sets the message's outcome before Celery acknowledges it.

    On stock kombu there is no lease, and `taskyard.broker.worker.fallback` does with messages what it can.
    """

    buries_failures = False  # True: a final failure is a dead letter
    _runtime: float | None = None  # seconds
    _accepted_at: float | None = None  # monotonic seconds
    _is_decided = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Restore our methods in the subclass that Celery makes for each task."""
        super().__init_subclass__(**options)
        if cls.__qualname__.startswith("create_request_cls."):
            del cls.on_success
            cls.execute_using_pool = bury_malformed_headers(cls.execute_using_pool)

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        super().__init__(message, *args, **options)
        self._lease = lease_of(message)
        self._tag = message.delivery_tag
        self._facts: dict[str, Any] = self._request_dict.get(HEADER) or {}
        if "headers" not in self._request_dict:  # else Celery's context looks for them itself, each time with all names
            self._request_dict["headers"] = {
                name: value for name, value in self._request_dict.items() if name not in CELERYS_HEADERS
            } or None

    @property
    def stalls(self) -> int:
        """How many lost workers count against this message."""
        return self._facts.get("stalls", 0) if self._lease is not None else 0

    @property
    def is_suspect(self) -> bool:
        """Whether a worker was lost with this message."""
        return self._lease is not None and self._facts.get("losses", 0) > 0

    def hold_back(self) -> None:
        """Others run beside it: the worker's death is not counted as a stall of this message."""
        if self._lease is not None:
            self._message.channel.leases.hold_back(self._tag)

    def let_go(self) -> None:
        """Run alone: from here on the worker's death counts."""
        if self._lease is not None:
            self._message.channel.leases.let_go(self._tag)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """
        The pool starts it.

        Raises:
            TaskRevokedError: It was returned, revoked or expired while it waited in this process's pool.
        """
        is_here = pid == os.getpid()
        if is_here and (self.expires or self.id in state.revoked) and self.revoked():
            raise TaskRevokedError(self.id)
        self._accepted_at = time_accepted
        started = start_detail(self, self._facts, pid)
        if self._lease is None:
            fallback.append(self, "started", started)
        elif not self._message.channel.leases.start(self._tag, started) and is_here:  # else a process has started it
            self._drop()
            raise TaskRevokedError(self.id)
        for observer in execution_observers:
            observer.started(self._execution())
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: tuple[Any, Any, float] | ExceptionInfo, **_: Any) -> Any:
        """It returned or raised; Celery passes both here, and from a thread what would end a process."""
        if isinstance(failed__retval__runtime, ExceptionInfo):
            return self.on_failure(failed__retval__runtime)
        failed, value, self._runtime = failed__retval__runtime
        if failed:
            self._runtime = self._seconds_since_accepted()  # Celery measures successes only
            error = cause_of(value)
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise error
            return self.on_failure(value, return_ok=True)
        self._decide(Completed("succeeded", success_detail(self._runtime, value)))
        state.task_ready(self, successful=True)
        if self.task.acks_late:
            self.acknowledge()
        self.send_event("task-succeeded", result=value, runtime=self._runtime)
        return None

    def on_thread_end(self, future: Any) -> None:
        """Report a thread that raised before the task began or while it ended."""
        error = None if future.cancelled() else future.exception()
        if error is not None and not isinstance(error, TaskRevokedError) and not self.acknowledged:
            self.on_failure(ExceptionInfo((type(error), error, error.__traceback__)))

    def bury_as_malformed(self, error: Exception) -> None:
        """Bury a message whose headers the pool cannot work with."""
        log.error("malformed message of run %s becomes a dead letter", self.id, exc_info=error)
        self._decide(self._bury("malformed", detail(error=type(error).__name__, message=str(error))))
        self._drop()

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """It asked to come back."""
        error = cause_of(exc_info)
        if isinstance(error, Redeliver):
            self._redeliver(error, exc_info)
        else:  # Celery's own retry has sent a new message with the same id
            self.note("retrying", self._failure_detail(exc_info, delay=None))
            self._decide(Completed(""))
        super().on_retry(exc_info)

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """It raised, or its process died."""
        error = cause_of(exc_info)
        if isinstance(error, WorkerLostError) and self._may_run_again():
            state.task_ready(self)
            self._decide(Stalled(self._failure_detail(exc_info)))
            self.reject(requeue=True)
            return None
        if isinstance(error, Reject):
            reject: Any = error  # its stubs lack the attributes
            self._decide(task_rejection(str(reject.reason)[:LONGEST_TEXT], requeue=reject.requeue))
        elif not isinstance(error, (Retry, Terminated)):
            self._decide(self._ending_of_failure(error, exc_info))
        if isinstance(error, MemoryError):  # Celery would end the worker, and then the next one: it comes back
            exc_info = info_of(OutOfMemoryError(error_text(error)))
        answer = super().on_failure(exc_info, send_failed_event, return_ok)
        if self._already_cancelled and not self.acknowledged:
            self._message.outcome = Returned()
            self.reject(requeue=True)
        return answer

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's signature
        """A time limit passed; after the hard one its process is killed."""
        if not soft and not state.should_terminate:
            text = f"hard time limit of {timeout} s exceeded"
            self._decide(self._bury("time_limit", detail(error="TimeLimitExceeded", message=text, runtime=timeout)))
        super().on_timeout(soft, timeout)

    def revoked(self) -> bool:
        """Whether it must not start: expired, revoked, cancelled, or its lease is gone."""
        if not self.acknowledged and is_withdrawn(self._message):
            self._drop()
            return True
        if not self._already_revoked and self._facts.get("cancelled"):
            self._announce_revoked("revoked", False, None, False)  # noqa: FBT003 - Celery's signature
            return True
        return bool(super().revoked())

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:  # noqa: FBT001 - Celery's
        cancelled = self._facts.get("cancelled") or cancellation_detail(reason, expired=expired)
        self._decide(Completed("cancelled", cancelled))
        super()._announce_revoked(reason, terminated, signum, expired)

    def note(self, event: EventKind, facts: str) -> None:
        """Append an event of this execution; its message may have been acknowledged early."""
        if self._lease is None:
            fallback.append(self, event, facts)
        else:
            self._message.channel.leases.note(event, self._lease, facts, outlives_lease=self.acknowledged)

    def _drop(self) -> None:
        """Forget a message whose lease is gone."""
        state.task_ready(self)
        self.acknowledge()

    def _decide(self, outcome: Outcome) -> None:
        """The first decision counts: a hard time limit is reported by the pool's timer and by the killed process."""
        if self._is_decided:
            return
        self._is_decided = True
        for observer in execution_observers:
            observer.ended(self._execution(), result_of(outcome))
        if self._lease is None or self.acknowledged:
            fallback.apply_outcome(self, outcome)
        else:
            self._message.outcome = outcome

    def _execution(self) -> TaskExecution:
        waited = self._facts.get("waited_ms")
        runtime = self._seconds_since_accepted() if self._runtime is None else self._runtime
        queue = (self.delivery_info or {}).get("routing_key") or ""
        return TaskExecution(self.name, queue, None if waited is None else waited / 1000, runtime)

    def _seconds_since_accepted(self) -> float | None:
        return None if self._accepted_at is None else monotonic() - self._accepted_at

    def _may_run_again(self) -> bool:
        if self._lease is None or self.acknowledged or not self.task.acks_late:
            return False
        limit: int = self._message.channel.max_stalls
        return (limit < 0 or self._facts.get("stalls", 0) < limit) and not self._success_was_stored()

    def _redeliver(self, error: Redeliver, exc_info: ExceptionInfo) -> None:
        kind: Literal["retrying", "snoozed"] = "retrying" if error.uses_attempt else "snoozed"
        if error.uses_attempt:
            facts = self._failure_detail(exc_info, delay=error.delay)
        else:
            facts = detail(delay=error.delay, runtime=self._runtime, reason=error_text(reason_of(error)))
        if self._lease is None or self.acknowledged:
            fallback.send_copy(self, error.delay, uses_attempt=error.uses_attempt)
        self._decide(Rescheduled(round(error.delay * 1000), kind, error.uses_attempt, facts))

    def _ending_of_failure(self, error: BaseException, exc_info: ExceptionInfo) -> Outcome:
        if isinstance(error, CancelledRun):
            return Completed("cancelled", detail(runtime=self._runtime, reason=str(error)))
        if isinstance(error, Ignore):
            return Completed("succeeded", detail(runtime=self._runtime, result="ignored"))
        if isinstance(error, TimeLimitExceeded):
            return self._bury("time_limit", self._failure_detail(exc_info))
        if isinstance(error, (WorkerLostError, SystemExit)):
            return self._bury("worker_lost", self._failure_detail(exc_info))
        if self.buries_failures:
            return self._bury(dead_letter_reason(error), self._failure_detail(exc_info))
        return Completed("failed", self._failure_detail(exc_info))

    def _bury(self, reason: str, facts: str) -> Outcome:
        if self._type == BURY_TASK:  # a dead letter is tried until it is stored
            return Rescheduled(DEAD_LETTER_PAUSE_MS, "snoozed", uses_attempt=False, detail=facts)
        return DeadLettered(reason, facts)

    def _failure_detail(self, exc_info: ExceptionInfo, **more: Any) -> str:
        return failure_detail(exc_info, self._runtime, **more)


class PlatformRequest(Request):
    """The request of a platform's tasks, typed or plain: a final failure becomes a dead letter."""

    buries_failures = True


def bury_malformed_headers(execute: Any) -> Any:
    """Wrap `execute_using_pool`: a message whose headers the pool cannot work with is buried."""

    def execute_using_pool(self: Any, pool: Any, **options: Any) -> Any:
        try:
            result = execute(self, pool, **options)
        except (TaskRevokedError, *INFRASTRUCTURE_ERRORS):
            raise
        except Exception as error:
            self.bury_as_malformed(error)
            raise TaskRevokedError(self.id) from error  # Celery frees the slot
        if getattr(pool, "uses_semaphore", False) and self._lease is not None:
            self._message.channel.leases.mark_dispatched(self._tag)
        future = getattr(result, "f", None)  # of a pool of threads
        if future is not None:
            future.add_done_callback(self.on_thread_end)
        return result

    return execute_using_pool
