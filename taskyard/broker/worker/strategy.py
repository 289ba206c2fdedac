"""From Celery's consumer to the pool (`Task.Strategy`), with a fast path for plain messages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import ref

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.app import trace as celerys_trace
from celery.concurrency.base import apply_target
from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import TaskRevokedError
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.worker.state import task_reserved
from celery.worker.strategy import default

from taskyard.broker.untyped import ThreadPool, create_request_cls
from taskyard.broker.worker.request import Request, bury_malformed_headers
from taskyard.broker.worker.thread_pool import WorkerThreads
from taskyard.pools.asyncio_pool import TaskPool as LoopPool

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger("celery.worker.strategy")  # under its name Celery says that it received a task
_trace: Any = celerys_trace


def strategy(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., Any]:
    """
    Return what handles the messages of one task.

    Celery's own does, for pools of processes, with task events, rate limits of the worker, foreign
    request classes and messages of protocol 1. Otherwise the body is decoded once instead of twice, and the pool gets
    the request itself.
    """
    celerys: Callable[..., Any] = default(task, app, consumer)
    eventer = consumer.event_dispatcher
    execute = _execute_of(consumer.pool, app)
    if execute is None or not issubclass(symbol_by_name(task.Request), Request):
        return celerys
    made = create_request_cls(symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, eventer, app=app)
    made.execute_using_pool = bury_malformed_headers(execute)
    does_info = log.isEnabledFor(logging.INFO)
    revoked = consumer.controller.state.revoked
    options = {
        "app": app, "hostname": consumer.hostname, "eventer": eventer, "task": task, "decoded": True,
        "connection_errors": consumer.connection_errors, "utc": app.uses_utc_timezone(),
    }  # fmt: skip

    def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> Any:
        headers = message.headers
        is_limited = not consumer.disable_rate_limits and consumer.task_buckets[task.name]
        is_special = body is not None or is_limited or headers.get("eta") or not isinstance(message.payload, list)
        if is_special or _sends_events(eventer, task):
            return celerys(message, body, ack, reject, callbacks)
        request = made(message, on_ack=ack, on_reject=reject, body=message.payload, headers=headers, **options)
        if does_info:
            _log_received(request)
        if (request.expires or request.id in revoked) and request.revoked():
            return None
        signals.task_received.send(sender=consumer, request=request)
        task_reserved(request)
        for callback in callbacks or ():
            callback(request)
        return consumer.on_task_request(request)

    return handle


def _sends_events(eventer: Any, task: Any) -> bool:
    """Whether task events are enabled; remote control switches them in `groups`."""
    return bool(eventer and eventer.enabled and task.send_events and (not eventer.groups or "task" in eventer.groups))


def _log_received(request: Any) -> None:
    context = {
        "id": request.id,
        "name": request.name,
        "args": request.argsrepr,
        "kwargs": request.kwargsrepr,
        "eta": request.eta,
    }
    log.info(_trace.LOG_RECEIVED, context, extra={"data": context})


def _execute_of(pool: Any, app: Any) -> Callable[..., None] | None:
    """What takes the place of `Request.execute_using_pool` for this pool; None where Celery's own stays."""
    trace = _trace.fast_trace_task if app.use_fast_trace_task else _trace.trace_task_ret

    def check(request: Any) -> None:
        _hard, _soft = request.time_limits  # these pools have none, but what is no pair is malformed
        if request.revoked():
            raise TaskRevokedError(request.id)

    def run(request: Any) -> None:
        message = (request.type, request.id, request.request_dict, request.body, None, None)
        apply_target(trace, message, None, request.on_success, request.on_accepted)

    def run_here(request: Any, _pool: Any, **_: Any) -> None:
        check(request)
        run(request)

    def run_in_thread(request: Any, pool: Any, **_: Any) -> None:
        check(request)
        pool.executor.run(lambda: _end_of(request, run))

    def run_on_loop(request: Any, pool: Any, **_: Any) -> Any:
        check(request)
        return _apply_on_loop(request, pool, trace)

    if type(pool) is SoloPool:
        return run_here
    if isinstance(pool, LoopPool):
        return run_on_loop
    if type(pool) is ThreadPool and isinstance(pool.executor, WorkerThreads):
        return run_in_thread
    return None


def _apply_on_loop(request: Any, pool: LoopPool, trace: Callable[..., Any]) -> Any:
    hard, soft = request.time_limits
    job = pool.apply_async(
        trace,
        args=(request.type, request.id, request.request_dict, request.body, None, None),
        accept_callback=request.on_accepted,
        timeout_callback=request.on_timeout,
        callback=request.on_success,
        error_callback=request.on_failure,
        soft_timeout=soft or request.task.soft_time_limit,
        timeout=hard or request.task.time_limit,
    )
    request._apply_result = ref(job)  # noqa: SLF001 - where `revoke` with `terminate` looks
    return job


def _end_of(request: Any, run: Callable[[Any], None]) -> None:
    """Run in a thread: an error before the task begins or while it ends would reach nobody."""
    try:
        run(request)
    except TaskRevokedError:
        return
    except BaseException as error:  # noqa: BLE001 - the edge of the thread
        if not request.acknowledged:
            request.on_failure(ExceptionInfo((type(error), error, error.__traceback__)))
