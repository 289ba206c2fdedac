"""The parts of a kombu channel that are not on the way of a message: sizes, purging, closing."""

from __future__ import annotations

import logging
from queue import Empty
from typing import TYPE_CHECKING, Any

import redis

from taskyard.broker.protocol.envelope import read_taken
from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.failover import PROBE, with_reconnect_on_refusal
from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.untyped import RedisChannel

if TYPE_CHECKING:
    from taskyard.broker.leases.manager import LeaseManager
    from taskyard.broker.protocol.envelope import TakenMessage

log = logging.getLogger(__name__)

PURGE_AT_ONCE = 1000  # messages per script call
KOMBUS_KEYS = ("keyprefix_queue", "keyprefix_binding_permanent", "keyprefix_binding_deadlines")
WAITING_SETS = ("waiting", "grouped")  # the sorted sets that together are the waiting messages


class Upkeep(RedisChannel):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Base of our channel."""

    key_prefix: str
    space: Keyspace
    leases: LeaseManager
    _asks: bool
    _own_client: redis.Redis | None = None

    @property
    def sync_client(self) -> redis.Redis:
        """One client for all calls that wait for their answer."""
        if self._own_client is None:
            self._own_client = self._create_client()
        return self._own_client

    def _disconnect_pools(self) -> None:
        self._own_client = None
        super()._disconnect_pools()

    def _connparams(self, *args: Any, **options: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(*args, **options)
        return {**parameters, "connection_class": with_reconnect_on_refusal(parameters["connection_class"])}

    def probe(self) -> None:
        """
        Find out whether the server works: a channel that cannot is no reason to begin, again and again.

        Raises:
            redis.ConnectionError: It is away, or refuses to work.
        """
        try:
            self.client.eval(PROBE, 0)
        except BaseException:
            self.close()
            raise

    def keep_kombus_keys_in_the_slot(self) -> None:
        """On a cluster kombu's own keys must be in our slot, too."""
        if "{" in self.key_prefix:
            for name in KOMBUS_KEYS:
                setattr(self, name, self.key_prefix + getattr(self, name))

    def _size(self, queue: str) -> int:
        """Messages that wait or are delayed; those under a lease are not counted."""
        pipeline = self.sync_client.pipeline(transaction=False)
        for kind in (*WAITING_SETS, "delayed"):
            pipeline.zcard(f"{self.key_prefix}{kind}:{queue}")
        return sum(pipeline.execute())

    def _has_queue(self, queue: str, **options: Any) -> bool:  # noqa: ARG002 - kombu's signature
        return self._size(queue) > 0

    def _purge(self, queue: str) -> int:
        removed = 0
        reason = detail(by="purge", reason="queue purged")
        while True:
            arguments = (queue, reason, PURGE_AT_ONCE, *WAITING_SETS, "delayed")
            count = int(run_script(self.sync_client, self.space, "drain", *arguments))
            removed += count
            if count < PURGE_AT_ONCE:
                return removed

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        self._purge(queue)
        self.auto_delete_queues.discard(queue)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        for table in (self.keyprefix_queue, self.keyprefix_binding_permanent):
            self.sync_client.srem(table % exchange, member)

    def _queue_bind(self, exchange: str, *routing: Any) -> None:
        """A full server, which refuses the note, must not keep a worker from starting: work is how it empties."""
        try:
            super()._queue_bind(exchange, *routing)
        except redis.exceptions.OutOfMemoryError:
            log.warning("the broker has reached maxmemory, the binding of %s to %s is not noted", routing[-1], exchange)

    def _refresh_bindings(self, queues: list[str]) -> None:
        try:
            super()._refresh_bindings(queues)
        except redis.exceptions.OutOfMemoryError:
            log.debug("the broker has reached maxmemory, bindings of %s are not renewed", queues)

    def close(self) -> None:
        """Close the channel: what was on its way to us goes back, what nobody ran goes back."""
        if self._in_poll:
            self._end_poll()
        super().close()

    def _end_poll(self) -> None:
        """An answer to `take` may hold messages; one to the wait for a marker holds nothing."""
        try:
            if self._asks:
                answer = self._read_answer("EVALSHA") or [0]
                messages = [read_taken(one) for one in answer[1:]]
                self._add_leases(messages)
                self._return_undelivered(messages)
        except (*self.connection_errors, redis.RedisError, Empty) as error:
            log.debug("messages on their way come back when their leases end: %s", error)
        finally:
            self._in_poll = None

    def _read_answer(self, command: str, **options: Any) -> Any:
        raise NotImplementedError

    def _add_leases(self, messages: list[TakenMessage]) -> None:
        raise NotImplementedError

    def _return_undelivered(self, messages: list[TakenMessage]) -> None:
        raise NotImplementedError
