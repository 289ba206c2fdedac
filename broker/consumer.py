"""Celery's consumer on our transport: keeps leases over a reconnect, buries what it cannot read (`worker_consumer`)."""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

from broker.endings import Buried, Lease, detail
from broker.leases import Leases
from broker.qos import lease_of, leases_of
from broker.untyped import CeleryConsumer

log = get_logger(__name__)

CELERYS_REQUEST = "celery.worker.request:Request"
OUR_REQUEST = "broker.request:Request"


class Consumer(CeleryConsumer):  # type: ignore[misc]  # see broker/untyped.py
    """A worker's consumer; on stock kombu it behaves as Celery's own."""

    def update_strategies(self) -> None:
        """Give plain tasks our request class, too."""
        for task in self.app.tasks.values():
            if task.Request == CELERYS_REQUEST:
                task.Request = OUR_REQUEST
        super().update_strategies()
        for leases in self._all_leases():
            leases.on_lost = self._on_lost

    def on_connection_error_after_connected(self, exc: BaseException) -> None:
        """Keep what is being worked on: a lease needs no connection."""
        for channel in self._our_channels():
            channel.qos.leave()
        super().on_connection_error_after_connected(exc)

    def on_close(self) -> None:
        """Return what Celery forgets here: prefork drops the requests that no process has accepted."""
        waiting = [request for request in state.reserved_requests if request not in state.active_requests]
        super().on_close()
        if self.pool is not None and self.pool.uses_semaphore:
            messages = [request.message for request in waiting if not request.acknowledged]
            for leases in {id(found): found for message in messages if (found := leases_of(message))}.values():
                leases.give_back(message.delivery_tag for message in messages)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Neither a task message of protocol 2 nor of protocol 1."""
        self._bury(message, "malformed", "UnknownMessage", "the message is no Celery task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """A task that this worker has not registered."""
        self._bury(message, "unknown_task", "NotRegistered", str(exc))
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:
        """The envelope or the content type is wrong."""
        self._bury(message, "malformed", type(exc).__name__, str(exc))
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """The body cannot be decoded."""
        self._bury(message, "malformed", type(exc).__name__, str(exc))
        super().on_decode_error(message, exc)

    def _bury(self, message: Any, reason: str, error: str, text: str) -> None:
        if lease_of(message) is not None:
            message.channel.leases.decide(message.delivery_tag, Buried(reason, detail(error=error, message=text)))

    def _our_channels(self) -> list[Any]:
        connection = self.connection
        channels = connection.transport.channels if connection is not None else []
        return [channel for channel in channels or [] if hasattr(channel, "leases")]

    def _all_leases(self) -> list[Leases]:
        return list({id(channel.leases): channel.leases for channel in self._our_channels()}.values())

    def _on_lost(self, leases: list[Lease]) -> None:
        """Called by the keeper thread: the loop's thread cancels what still runs."""
        for lease in leases:
            if self.hub is not None:
                self.hub.call_soon(self._cancel_lost, lease)
            else:
                self._cancel_lost(lease)

    def _cancel_lost(self, lease: Lease) -> None:
        for request in list(state.active_requests):
            message = request.message
            if message.delivery_tag == lease.delivery_tag:
                log.warning("run %s goes on elsewhere, this execution is cancelled", lease.run_id)
                try:
                    request.cancel(self.pool, emit_retry=False)
                except NotImplementedError:  # threads and solo cannot; their late answer is refused
                    log.info("this pool cannot cancel run %s", lease.run_id)
