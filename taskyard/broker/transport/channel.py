"""kombu's Redis channel on our data model: queues, messages and leases live behind the scripts."""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import redis
from kombu.utils.json import dumps

from taskyard.broker.leases.manager import LeaseManager
from taskyard.broker.protocol.envelope import NORMAL_PRIORITY, new_nonce, put_fields
from taskyard.broker.protocol.message import DeliveredMessage
from taskyard.broker.scripts.failover import PROBE, with_reconnect_on_refusal
from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.server.clock_check import warn_of_skew
from taskyard.broker.server.ownership import check_owner, platform, platform_key
from taskyard.broker.transport import cancellation, declarations
from taskyard.broker.transport.declaring_channel import DeclaringChannel
from taskyard.broker.transport.dedup_reports import report_duplicate
from taskyard.broker.transport.fetcher import MessageFetcher
from taskyard.broker.transport.publish_batch import PublishBatch, RoutedMessage
from taskyard.broker.transport.qos import QoS
from taskyard.broker.transport.queue_store import QueueStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskyard.broker.protocol.outcomes import BrokerLease

log = logging.getLogger(__name__)

KOMBU_KEYS = ("keyprefix_queue", "keyprefix_binding_permanent", "keyprefix_binding_deadlines")
_leases: dict[tuple[Any, ...], LeaseManager] = {}  # per server and prefix: deliveries outlive their channels


class Channel(DeclaringChannel):
    """
    Puts, takes and acknowledges through the scripts of taskyard/broker/scripts; fanout stays kombu's.

    Transport options of ours: `key_prefix`, `lease_ms`, `max_stalls` (-1: never dead), `writes_events`: an
    history writer reads and trims them; without one the stream grows.
    """

    QoS = QoS
    Message = DeliveredMessage
    key_prefix = "taskyard:"
    lease_ms = 30_000
    max_stalls = 3
    writes_events = False
    body_encoding = "utf-8"
    from_transport_options = (
        *DeclaringChannel.from_transport_options,
        "key_prefix", "lease_ms", "max_stalls", "writes_events",
    )  # fmt: skip

    def __init__(self, *args: Any, **options: Any) -> None:
        self.taken: dict[str, BrokerLease] = {}  # handed out by the server, not yet seen by the QoS
        self._no_ack: set[str] = set()
        self._own_client: redis.Redis | None = None
        self.fetcher = MessageFetcher(self)
        super().__init__(*args, **options)
        self._probe()
        self._prefix_names_of_kombu()
        self.space = Keyspace(self.key_prefix, self.writes_events)
        self.queues = QueueStore(lambda: self.sync_client, self.space)
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
        headers = args[2] if len(args) > 2 else options.get("headers")  # noqa: PLR2004 - by position
        properties = args[3] if len(args) > 3 else options.setdefault("properties", {})  # noqa: PLR2004 - as above
        declarations.check_publication(headers, properties)
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
        routed = RoutedMessage(queue, message, self.lifetimes.get(queue, 0))
        batch: PublishBatch | None = options.pop("_publish_batch", None)
        if batch is not None:
            batch.routed.append(routed)
            batch.put(routed)
            return
        self.put_routed(routed)

    def put_routed(self, routed: RoutedMessage, encode: Callable[[Any], str] = dumps) -> None:
        """
        Put one message; `encode` writes its envelope as JSON.

        Raises:
            redis.RedisError: The broker did not answer; the same message can be put again, it is stored once.
        """
        existing = run_script(self.sync_client, self.space, "put", *put_fields(*routed, encode))[0]
        if existing:
            report_duplicate(str(routed.message["headers"]["id"]), existing.decode())

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Kombu's `Producer.batch`: many puts in one script call."""
        return PublishBatch(self, max_size)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **options: Any) -> None:
        cancellation.remember(self.sync_client, self.space, exchange, message)
        super()._put_fanout(exchange, message, routing_key, **options)

    # Consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:  # noqa: FBT001 - kombu's signature
        """Start to take from the queue."""
        declarations.check_consumer(queue, options.get("arguments"))
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

    def take_arguments(self, queues: list[str], want: int) -> tuple[Any, ...]:
        """Return the arguments of take.lua."""
        pairs = (argument for queue in queues for argument in (queue, "1" if queue in self._no_ack else "0"))
        leases = self.leases
        in_hand, holds = leases.in_hand(), int(leases.holds_suspects)
        return (self.lease_ms, self.max_stalls, want, leases.holder, in_hand, holds, *pairs)

    def begin_poll(self, connection: Any) -> None:
        """Note, in kombu's terms, that a command is in flight on this connection."""
        self._in_poll = connection
        self._brpop_sent_at = monotonic()

    def end_poll(self) -> None:
        """Note that no command is in flight."""
        self._in_poll = None

    @property
    def has_loop(self) -> bool:
        """Whether a worker's loop sends outcomes; without one, each takes effect at once."""
        return self.connection is None or self.connection.cycle.loop is not None

    @property
    def is_polling(self) -> bool:
        """Whether a command is in flight."""
        return bool(self._in_poll)

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.fetcher.send(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        return self.fetcher.read(**options)

    def _poll_error(self, type: str, **options: Any) -> None:  # noqa: A002 - kombu's signature
        if type == "LISTEN":
            self.subclient.parse_response()
        else:
            self.fetcher.read_error(**options)

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Take one message now, None if there is none."""
        message = super().basic_get(queue, no_ack=False, **options)
        if message is not None and no_ack:
            message.ack()
        return message

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002 - kombu's signature
        return self.fetcher.take_one(queue)

    # Queues

    def _size(self, queue: str) -> int:
        return self.queues.size(queue)

    def _has_queue(self, queue: str, **options: Any) -> bool:  # noqa: ARG002 - kombu's signature
        return self._size(queue) > 0

    def _purge(self, queue: str) -> int:
        return self.queues.purge(queue)

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        self._purge(queue)
        self.auto_delete_queues.discard(queue)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        for table in (self.keyprefix_queue, self.keyprefix_binding_permanent):
            self.sync_client.srem(table % exchange, member)

    # Connections

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

    def _probe(self) -> None:
        """
        Check that the server works and is this platform's, before anything depends on this channel.

        Raises:
            redis.ConnectionError: It is away, or refuses to work.
            OtherPlatformError: Its keys under our prefix belong to another platform.
        """
        try:
            asked_at = time()
            answer: Any = self.client.eval(PROBE, 1, platform_key(self.key_prefix))
            check_owner(self.key_prefix, platform(answer[:2]))
            warn_of_skew(int(answer[2]) + int(answer[3]) / 1_000_000, asked_at)
        except BaseException:
            self.close()
            raise

    def _prefix_names_of_kombu(self) -> None:
        """Platforms that share a server share no binding and no channel of remote control or events."""
        for name in KOMBU_KEYS:
            setattr(self, name, self.key_prefix + getattr(self, name))
        self.keyprefix_fanout = channel_prefix(self.key_prefix, self._connparams()["db"])

    def close(self) -> None:
        """Close the channel, and return what was in flight or unsettled."""
        if self._in_poll:
            self.fetcher.abort()
        super().close()


def channel_prefix(prefix: str, database: int) -> str:
    """
    Return how the channels of a platform for remote control and events begin.

    Kombu wants a slash first, takes what is behind the first full stop for the exchange's name, and subscribes to
    patterns: what has a meaning there is escaped as in a URL.

    >>> channel_prefix("{shop.eu}:", 0)
    '/%7Bshop%2Eeu%7D:0.'
    """
    return f"/{quote(prefix, safe=':').replace('.', '%2E')}{database}."
