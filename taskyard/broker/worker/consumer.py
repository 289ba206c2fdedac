"""Celery's consumer on our transport: keeps leases over a reconnect, and buries unreadable messages."""

from __future__ import annotations

from typing import Any

import click
from celery import signals
from celery.app.task import Context
from celery.bootsteps import ConsumerStep
from celery.exceptions import NotRegistered
from celery.utils.log import get_logger
from celery.worker import state

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.outcomes import BrokerLease, DeadLettered, detail
from taskyard.broker.transport.declarations import UnsupportedArgumentError, check_task_queue
from taskyard.broker.transport.qos import lease_of
from taskyard.broker.transport.transport import Transport
from taskyard.broker.untyped import ENDING_STATES, CeleryConsumer, ThreadPool
from taskyard.broker.worker.gc_tuning import freeze_startup_objects
from taskyard.broker.worker.message_handler import checked, task_handler
from taskyard.broker.worker.soft_shutdown import SoftShutdown, flush_leases
from taskyard.broker.worker.suspects import SuspectGate
from taskyard.broker.worker.thread_pool import WorkerThreads

log = get_logger(__name__)

CELERYS_REQUEST = "celery.worker.request:Request"
OUR_REQUEST = "taskyard.broker.worker.request:Request"
CELERYS_STRATEGY = "celery.worker.strategy:default"
OUR_STRATEGY = "taskyard.broker.worker.strategy:strategy"


class Consumer(CeleryConsumer):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """A worker's consumer; on stock kombu it behaves as Celery's own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refuse_unsupported_queues()
        self.leases: list[LeaseManager] = []  # of our channels, also of lost connections
        self._shutdown = SoftShutdown(self) if self.controller is not None else None
        if type(self.pool) is ThreadPool and not isinstance(self.pool.executor, WorkerThreads):
            self.pool.executor = WorkerThreads(self.pool.limit)
        self._holds_suspects = self.hub is not None and not self.pool.uses_semaphore  # tasks share our process
        if self._holds_suspects:
            gate = SuspectGate(vars(self)["on_task_request"])
            self.on_task_request: Any = gate.admit
            self.hub.on_tick.add(gate.release)
        freeze_startup_objects()

    def _refuse_unsupported_queues(self) -> None:
        if not issubclass(self.app.connection_for_read().get_transport_cls(), Transport):
            return
        try:
            for queue in self.app.amqp.queues.consume_from.values():
                check_task_queue(queue)
        except UnsupportedArgumentError as error:
            raise click.ClickException(str(error)) from error

    def update_strategies(self) -> None:
        """Give plain tasks our strategy, and a request class of ours: the one that the app names, if it does."""
        request_of_plain_tasks = getattr(self.app, "request_of_plain_tasks", OUR_REQUEST)
        for task in self.app.tasks.values():
            if task.Request == CELERYS_REQUEST:
                task.Request = OUR_REQUEST if task.name.startswith("celery.") else request_of_plain_tasks
            if task.Strategy == CELERYS_STRATEGY:
                task.Strategy = OUR_STRATEGY
        super().update_strategies()
        for channel in self._our_channels():
            if channel.leases not in self.leases:
                self.leases.append(channel.leases)
            channel.leases.on_lost = self._on_lost
            channel.leases.holder = self.hostname
            channel.leases.holds_suspects = self._holds_suspects

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        """Use the fast path where the loop is Celery's and the transport ours."""
        celerys = super().create_task_handler(*args, **options)
        if not self._our_channels():
            return celerys
        return checked(self, celerys if self.hub is None else task_handler(self, celerys))

    def start(self) -> None:
        """Consume until the worker ends; its own fatal error counts as a stall of what it was executing."""
        try:
            super().start()
        except Exception as error:
            log.exception("the worker ends by an error of its own; what it executes counts as stalled")
            self._stall_started(error)
            raise

    def _stall_started(self, error: Exception) -> None:
        facts = detail(error=type(error).__name__, message=f"the worker ended by its own error: {error}")
        for leases, tags in self._unsettled():
            leases.stall_started(tags, facts)
        flush_leases(self.leases)

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Keep running tasks: a lease needs no connection."""
        for channel in self._our_channels():
            channel.qos.detach()
        super().on_connection_error_after_connected(exc)
        self._forget_lost_consumers()

    def _forget_lost_consumers(self) -> None:
        """Spare steps such as Gossip to cancel consumers of a connection that is closed: they fail, with an ERROR."""
        for step in self.steps:
            if isinstance(step, ConsumerStep):
                step.consumers = None

    def on_close(self) -> None:
        """Return messages that have not started: at the worker's end, and where Celery forgets them (prefork)."""
        super().on_close()
        is_end = self.controller is not None and self.controller.blueprint.state in ENDING_STATES
        if is_end or (self.pool is not None and self.pool.uses_semaphore):
            self.return_unstarted(with_dispatched=not is_end)  # else Celery's pool drops what it was given
        if is_end and self._shutdown is not None:
            self._shutdown.wait()

    def cancel_active_requests(self) -> None:
        """Called by Celery's signal handlers; at the first signal running tasks may finish, see `soft_shutdown`."""
        if self._shutdown is None or not self._shutdown.cut():
            self.stop_running_tasks()

    def stop_running_tasks(self) -> None:
        """Kill the pool's processes that still run a task, and return their messages."""
        super().cancel_active_requests()

    def shutdown(self) -> None:
        """Close the connection and flush outcomes: the process ends."""
        super().shutdown()
        flush_leases(self.leases)

    def return_unstarted(self, *, with_dispatched: bool = False) -> None:
        """Return every message that has not started; whether a dispatched one has is not known."""
        for leases, tags in self._unsettled():
            leases.return_unstarted(tags, with_dispatched=with_dispatched)

    def return_all(self) -> None:
        """Return every message, running or not."""
        for leases, tags in self._unsettled():
            leases.return_messages(tags)

    def _unsettled(self) -> list[tuple[LeaseManager, list[str]]]:
        found = [(leases, list(leases.orphans)) for leases in self.leases]
        return found + [(channel.leases, channel.qos.unsettled()) for channel in self._our_channels()]

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Neither a task message of protocol 2 nor of protocol 1."""
        if not self._bury(message, "malformed", "UnknownMessage", "the message is no Celery task"):
            super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task that this worker has not registered."""
        if self._bury(message, "unknown_task", "NotRegistered", str(exc)):
            self._fail_result(message)
        else:
            super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """The envelope or the content type is wrong."""
        if not self._bury(message, "malformed", type(exc).__name__, str(exc)):
            super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """The body cannot be decoded."""
        if not self._bury(message, "malformed", type(exc).__name__, str(exc)):
            super().on_decode_error(message, exc)

    def _bury(self, message: Any, reason: str, error: str, text: str) -> bool:
        """Make a message a dead letter; False when there is no lease, so that Celery discards it."""
        lease = lease_of(message)
        if lease is None:
            return False
        log.error("message %s on %s becomes a dead letter (%s): %s", lease.tag, lease.queue, reason, text)
        message.outcome = DeadLettered(reason, detail(error=error, message=text))
        message.reject_log_error(log, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=None)
        return True

    def _fail_result(self, message: Any) -> None:
        """Tell who waits for the result of an unknown task."""
        headers, properties = message.headers, message.properties
        name, run_id = headers.get("task"), headers.get("id")
        if name and run_id and not headers.get("ignore_result"):
            request = Context(headers, correlation_id=properties.get("correlation_id"), errbacks=None, chord=None)
            self.app.backend.mark_as_failure(run_id, NotRegistered(name), request=request)
        signals.task_unknown.send(sender=self, message=message, exc=None, name=name, id=run_id)

    def _our_channels(self) -> list[Any]:
        connection = self.connection
        channels = connection.transport.channels if connection is not None else []
        return [channel for channel in channels or [] if hasattr(channel, "leases")]

    def _on_lost(self, leases: list[BrokerLease]) -> None:
        """Called by the lease thread; the loop's thread cancels the executions."""
        for lease in leases:
            if self.hub is not None:
                self.hub.call_soon(self._cancel_lost, lease)
            else:
                self._cancel_lost(lease)

    def _cancel_lost(self, lease: BrokerLease) -> None:
        for request in list(state.active_requests):
            message = request.message
            if message.delivery_tag == lease.delivery_tag:
                log.warning("run %s continues elsewhere, this execution is cancelled", lease.run_id)
                try:
                    request.cancel(self.pool, emit_retry=False)
                except NotImplementedError:  # threads and solo cannot; their late answer is refused
                    log.info("this pool cannot cancel run %s", lease.run_id)
