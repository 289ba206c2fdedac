"""kombu's Redis channel on our data model: queues, messages and leases live behind the scripts."""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import Any

import redis

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.envelope import (
    NORMAL_PRIORITY,
    TakenMessage,
    envelope_of,
    new_nonce,
    put_arguments,
    read_taken,
)
from taskyard.broker.protocol.message import DeliveredMessage
from taskyard.broker.protocol.outcomes import INFRASTRUCTURE_ERRORS, BrokerLease, Completed, DeadLettered, detail
from taskyard.broker.scripts.runner import Keyspace, ScriptCall, evalsha_arguments, run_script, script
from taskyard.broker.transport import cancellation
from taskyard.broker.transport.channel_maintenance import Upkeep
from taskyard.broker.transport.dedup_reports import report_duplicate
from taskyard.broker.transport.publish_batch import PublishBatch, RoutedMessage
from taskyard.broker.transport.qos import QoS

log = logging.getLogger(__name__)

SERVERS_TICK = 0.1  # seconds by which a blocked command may end late
TAKE_AT_MOST = 64  # messages per call: bounds the time of the script and of one turn of the loop
_leases: dict[tuple[Any, ...], LeaseManager] = {}  # per server and prefix: deliveries outlive their channels


class Channel(Upkeep):
    """
    Puts, takes and acknowledges through the scripts of taskyard/broker/scripts; fanout stays kombu's.

    Transport options of ours: `key_prefix`, `lease_ms`, `max_stalls` (-1: never dead), `writes_events`: an
    audit writer reads and trims them; without one the stream grows.
    """

    QoS = QoS
    Message = DeliveredMessage
    key_prefix = "taskyard:"
    lease_ms = 30_000
    max_stalls = 3
    writes_events = False
    body_encoding = "utf-8"
    from_transport_options = (
        *Upkeep.from_transport_options,
        "key_prefix", "lease_ms", "max_stalls", "writes_events",
    )  # fmt: skip

    def __init__(self, *args: Any, **options: Any) -> None:
        self.taken: dict[str, BrokerLease] = {}  # handed out by the server, not yet seen by the QoS
        self._no_ack: set[str] = set()
        self._asks = True  # the next command is `take`, else the wait for a marker
        self._next_look = -1  # ms after which a take may find something; -1: unknown
        self._not_before = 0.0  # monotonic seconds of the next command
        super().__init__(*args, **options)
        self.probe()
        self.keep_kombus_keys_in_the_slot()
        self.space = Keyspace(self.key_prefix, self.writes_events)
        self.leases = self._shared_leases()

    def _shared_leases(self) -> LeaseManager:
        settings = {name: value for name, value in self._connparams().items() if name != "connection_class"}
        master = getattr(self, "master_name", None)
        identity = (
            self.key_prefix,
            self.lease_ms,
            master,
            *sorted((name, str(value)) for name, value in settings.items()),
        )
        if identity not in _leases:
            _leases[identity] = LeaseManager(self._client_of_its_own(), self.space, self.lease_ms, self.max_stalls)
        return _leases[identity]

    def _client_of_its_own(self) -> redis.Redis:
        pool = self._get_pool()
        patience = max(1.0, self.lease_ms / 3000)  # seconds: a renewal that hangs longer is tried again in time
        pool.connection_kwargs.update(socket_timeout=min(patience, self.socket_timeout or patience))
        return redis.Redis(connection_pool=pool)

    # Publishing

    def prepare_message(self, body: Any, priority: Any = None, *args: Any, **options: Any) -> dict[str, Any]:
        """Name the publication once: kombu repeats it after a lost answer, and the same put twice changes nothing."""
        properties = args[3] if len(args) > 3 else options.setdefault("properties", {})  # noqa: PLR2004 - by position
        properties.setdefault("delivery_tag", new_nonce())
        properties.setdefault("priority", NORMAL_PRIORITY if priority is None else priority)
        prepared: dict[str, Any] = super().prepare_message(body, priority, *args, **options)
        return prepared

    def _inplace_augment_message(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        encoding = "utf-8" if isinstance(message["body"], str) else "base64"
        message["body"], _ = self.encode_body(message["body"], encoding)
        properties = message["properties"]
        properties["body_encoding"] = encoding
        properties.setdefault("delivery_tag", new_nonce())
        properties["delivery_info"].update(exchange=exchange, routing_key=routing_key)

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        routed = RoutedMessage(queue, message, self._expires.get(queue, 0))
        batch: PublishBatch | None = options.pop("_publish_batch", None)
        if batch is not None:
            batch.routed.append(routed)
            batch.put(routed)
            return
        existing = run_script(self.sync_client, self.space, "put", *put_arguments(*routed))[0]
        if existing:
            report_duplicate(str(message["headers"]["id"]), existing.decode())

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Kombu's `Producer.batch`: many puts in one script call."""
        return PublishBatch(self, max_size)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **options: Any) -> None:
        cancellation.remember(self.sync_client, self.space, exchange, message)
        super()._put_fanout(exchange, message, routing_key, **options)

    # Consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:  # noqa: FBT001 - kombu's signature
        """Start to take from the queue."""
        if no_ack:
            self._no_ack.add(queue)
        consumer = super().basic_consume(queue, no_ack, *args, **options)
        if queue not in self._fanout_queues and not no_ack:
            self.leases.register_consumer(queue)
        return consumer

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        if queue is not None and queue not in self._fanout_queues and queue not in self._no_ack:
            self.leases.unregister_consumer(queue)
        return super()._basic_cancel(consumer_tag)

    def _take_arguments(self, queues: list[str], want: int) -> tuple[Any, ...]:
        pairs = (argument for queue in queues for argument in (queue, "1" if queue in self._no_ack else "0"))
        return (self.lease_ms, self.max_stalls, want, *pairs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send `take`, or the wait for a marker when there was nothing to take."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        want = min(TAKE_AT_MOST, self.qos.free_slots())
        if not queues or not self.qos.can_consume() or want < 1 or monotonic() < self._not_before:
            return
        if not self._asks and self._waits_here():
            return
        if "can_consume" in self.qos.__dict__:
            want = 1  # worker_disable_prefetch: the worker tells only whether one more may come
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        if self._asks:
            call = ScriptCall("take", self._take_arguments(queues, want))
            connection.send_command("EVALSHA", *evalsha_arguments(self.space, call))
        else:
            wait = self.brpop_timeout if timeout is None else timeout
            if self._next_look >= 0:
                wait = min(wait or 1.0, max(0.001, self._next_look / 1000 - SERVERS_TICK))
            markers = (f"{self.key_prefix}marker:{queue}" for queue in queues)
            connection.send_command("BZPOPMIN", *markers, wait)

    def _waits_here(self) -> bool:
        """Wait in the loop for what is due soon: a server looks after its blocked clients only ten times per second."""
        loop, seconds = self.connection.cycle.loop, self._next_look / 1000
        if loop is None or not 0 <= seconds <= SERVERS_TICK:
            return False
        self._asks = True
        self._not_before = monotonic() + seconds
        loop.call_later(seconds, _wake)
        return True

    def _brpop_read(self, **options: Any) -> bool:
        was_take, self._asks = self._asks, True
        is_sent_again = False
        try:
            answer = self._read_answer("EVALSHA" if was_take else "BZPOPMIN", **options)
            if was_take and answer is not None:
                self._next_look = answer[0]
                if len(answer) > 1:
                    self._deliver_messages(answer[1:])
                    return True
                self._asks = False
                self._in_poll = None
                self._brpop_start()
                is_sent_again = self._in_poll is not None
            raise Empty
        finally:
            if not is_sent_again:
                self._in_poll = None
                self._flush_brpop_reauth()

    def _read_answer(self, command: str, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, command, **options)
        except redis.exceptions.NoScriptError:
            self.sync_client.script_load(script("take").text)
            return None
        except self.connection_errors:
            connection.disconnect()
            raise

    def _deliver_messages(self, answers: list[Any]) -> None:
        messages = [read_taken(answer) for answer in answers]
        self._add_leases(messages)
        for position, taken in enumerate(messages):
            try:
                self._deliver(taken)
            except INFRASTRUCTURE_ERRORS:
                self._return_undelivered(messages[position:])
                raise
            except Exception as error:  # noqa: BLE001 - a message must not end the worker, whatever is wrong with it
                self._refuse(taken, error)
            except BaseException:
                self._return_undelivered(messages[position:])
                raise
        self._queue_cycle.rotate(messages[-1].queue)

    def _add_leases(self, messages: list[TakenMessage]) -> None:
        """Renew all leases at once: a consumer may be busy with the first message for long (solo)."""
        leases = [lease for lease in map(TakenMessage.to_lease, messages) if lease is not None]
        self.leases.hold(leases)
        self.taken.update((lease.delivery_tag, lease) for lease in leases)

    def _return_undelivered(self, messages: list[TakenMessage]) -> None:
        """The loop ends in the middle of a batch: what has not started goes back to the head."""
        tags = [taken.delivery_tag for taken in messages]
        for tag in tags:
            self.taken.pop(tag, None)
        self.leases.return_unstarted(tags, with_dispatched=True)

    def _deliver(self, taken: TakenMessage) -> None:
        if taken.lease and self.leases.get(taken.delivery_tag) is None:  # given back, or lost, while others ran
            self.taken.pop(taken.delivery_tag, None)
            return
        self.connection._deliver(envelope_of(taken), taken.queue)  # noqa: SLF001 - kombu's way in

    def _refuse(self, taken: TakenMessage, error: Exception) -> None:
        """Bury what nobody can read."""
        log.error("malformed message %s on %s goes to the dead letters", taken.tag, taken.queue, exc_info=error)
        tag = taken.delivery_tag
        self.leases.decide(tag, DeadLettered("malformed", detail(error=type(error).__name__, message=str(error))))
        if self.taken.pop(tag, None) is None and tag in self.qos.unsettled():
            self.qos.ack(tag)  # frees its slot
        self.leases.end(tag)

    def _poll_error(self, type: str, **options: Any) -> None:  # noqa: A002 - kombu's signature
        if type == "LISTEN":
            self.subclient.parse_response()
        else:
            self.client.parse_response(self.client.connection, "EVALSHA" if self._asks else "BZPOPMIN", **options)

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Take one message now, None if there is none."""
        message = super().basic_get(queue, no_ack=False, **options)
        if message is not None and no_ack:
            self.leases.decide(message.delivery_tag, Completed(""))
            message.ack()
        return message

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        answer = run_script(self.sync_client, self.space, "take", *self._take_arguments([queue], 1))
        messages = [read_taken(one) for one in answer[1:]]
        self._add_leases(messages)
        for taken in messages:
            try:
                return envelope_of(taken)
            except (ValueError, TypeError, RecursionError) as error:
                self._refuse(taken, error)
        raise Empty


def _wake() -> None:
    """The loop looks at its channels after each timer."""
