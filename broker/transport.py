"""
The transport itself: kombu's Redis transport with our channel and poller.

Set it with `broker_transport = "broker.transport:Transport"`; URLs stay `redis://`, `rediss://` and `redis+socket://`.
For `sentinel://` it is `"broker.transport:SentinelTransport"`.
"""

from typing import Any

from celery.signals import before_task_publish

from broker import channel
from broker.messages import give_normal_priority
from broker.poller import Poller
from broker.untyped import SENTINEL_PORT, RedisSentinelChannel, RedisTransport

before_task_publish.connect(give_normal_priority)  # for apps that name the transport themselves


class Transport(RedisTransport):  # type: ignore[misc]  # see broker/untyped.py
    """Celery's broker on one Redis or Valkey server."""

    Channel = channel.Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cycle = Poller()


class SentinelChannel(channel.Channel, RedisSentinelChannel):  # type: ignore[misc]  # see broker/untyped.py
    """Our channel, with the master found through Sentinel."""

    from_transport_options = tuple(
        dict.fromkeys((*channel.Channel.from_transport_options, *RedisSentinelChannel.from_transport_options))
    )


class SentinelTransport(Transport):
    """Celery's broker on the master that Sentinel names."""

    default_port = SENTINEL_PORT
    Channel = SentinelChannel
