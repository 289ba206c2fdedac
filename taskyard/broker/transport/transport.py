"""
The transport itself: kombu's Redis transport with our channel and poller.

Set it with `broker_transport = "taskyard.broker.transport.transport:Transport"`; URLs stay `redis://`, `rediss://` and `redis+socket://`.
For `sentinel://` it is `"taskyard.broker.transport.transport:SentinelTransport"`.
"""

from collections.abc import Sequence
from typing import Any

import redis
from celery.signals import before_task_publish

from taskyard.broker.protocol.envelope import give_normal_priority
from taskyard.broker.transport import channel
from taskyard.broker.transport.poller import ChannelPoller
from taskyard.broker.untyped import SENTINEL_PORT, RedisSentinelChannel, RedisTransport

before_task_publish.connect(give_normal_priority)  # for apps that name the transport themselves


class Transport(RedisTransport):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Celery's broker on one Redis or Valkey server."""

    Channel = channel.Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = ChannelPoller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Take part in the loop of a worker."""
        self.cycle.loop = loop
        super().register_with_event_loop(connection, loop)


class SentinelChannel(channel.Channel, RedisSentinelChannel):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Our channel, with the master found through Sentinel (options `sentinels`: host and port each, `master_name`)."""

    sentinels: Sequence[tuple[str, int]] = ()
    from_transport_options = tuple(
        dict.fromkeys(
            (*channel.Channel.from_transport_options, *RedisSentinelChannel.from_transport_options, "sentinels")
        )
    )

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Ask all sentinels: kombu knows them only as further URLs, to which it would switch with its own transport."""
        if not self.sentinels:
            return super()._sentinel_managed_pool(asynchronous)
        parameters = self._connparams(asynchronous)
        for name in ("host", "port"):
            parameters.pop(name, None)
        make: Any = redis.Sentinel
        manager = make(
            [tuple(pair) for pair in self.sentinels],
            min_other_sentinels=getattr(self, "min_other_sentinels", 0),
            sentinel_kwargs=getattr(self, "sentinel_kwargs", None),
            **parameters,
        )
        setattr(self, "_async_sentinel_manager" if asynchronous else "_sentinel_manager", manager)
        credentials = {name: parameters[name] for name in ("username", "password") if name in parameters}
        return manager.master_for(self.master_name, redis.Redis, **credentials).connection_pool


class SentinelTransport(Transport):
    """Celery's broker on the master that Sentinel names."""

    default_port = SENTINEL_PORT
    Channel = SentinelChannel
