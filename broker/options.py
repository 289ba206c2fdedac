"""Celery's settings for the transport that the platform's settings choose."""

import re
from datetime import timedelta
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs

from celery.signals import before_task_publish

from broker.messages import give_normal_priority

EVENTS_KEPT = 100_000  # entries of the event stream; about 50 MB
MS = timedelta(milliseconds=1)
DEFAULT_MASTER = "mymaster"  # as in Redis's own sentinel.conf


class TransportSettings(Protocol):
    """What the transport needs to know of the platform's settings."""

    @property
    def redis_url(self) -> str:
        """A redis, rediss, unix or sentinel URL."""

    @property
    def taskyard_transport(self) -> Literal["taskyard", "redis"]:
        """`redis` is stock kombu."""

    @property
    def worker_queue_stalled_interval(self) -> timedelta:
        """A lease that is not renewed for so long is taken back."""

    @property
    def worker_max_stalls(self) -> int:
        """A message that lost its worker more often is a dead letter."""

    @property
    def taskyard_key_prefix(self) -> str:
        """Put before every key of ours."""

    @property
    def audit_enabled(self) -> bool:
        """False: no events are written."""


def transport_settings(settings: TransportSettings) -> dict[str, Any]:
    """Return Celery's settings for the platform's transport, or for stock kombu."""
    url, master = split_master(kombu_url(settings.redis_url))
    options: dict[str, Any] = {
        "key_prefix": settings.taskyard_key_prefix,
        "stream_length": EVENTS_KEPT if settings.audit_enabled else 0,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "max_connections": 200,  # a green pool needs one for each slot
    }
    common = {
        "broker_url": url,
        "result_backend": url,
        "broker_transport_options": options,
        "worker_consumer": "broker.consumer:Consumer",
    }
    interval_ms = int(settings.worker_queue_stalled_interval / MS)
    if master:
        options["master_name"] = master
        common["result_backend_transport_options"] = {"master_name": master}
    if settings.taskyard_transport == "redis":
        options.update(visibility_timeout=interval_ms / 1000, unacked_restore_interval=1, unacked_restore_throttle=1)
        options.update(global_keyprefix=settings.taskyard_key_prefix)
        return common
    options.update(lease_ms=interval_ms, max_stalls=settings.worker_max_stalls)
    before_task_publish.connect(give_normal_priority)
    name = "SentinelTransport" if master else "Transport"
    return {
        **common,
        "broker_transport": f"broker.transport:{name}",
        # Messages of an earlier connection count as prefetched by themselves: Celery need not lower the limit.
        "worker_enable_prefetch_count_reduction": False,
    }


def split_master(url: str) -> tuple[str, str | None]:
    """
    Take the master's name out of a Sentinel URL; None for other URLs. Several sentinels are separated by `;`.

    >>> split_master("sentinel://a:26379;sentinel://b:26379/0?master_name=main")
    ('sentinel://a:26379;sentinel://b:26379/0', 'main')
    >>> split_master("redis://localhost:6379/0")
    ('redis://localhost:6379/0', None)
    """
    if not url.startswith("sentinel:"):
        return url, None
    plain, _, query = url.partition("?")
    names = parse_qs(query).get("master_name", [DEFAULT_MASTER])
    return plain, names[0]


def kombu_url(url: str) -> str:
    """
    Return the URL as kombu writes it: its scheme for a unix socket is `redis+socket`.

    >>> kombu_url("unix:///run/valkey.sock?db=1")
    'redis+socket:///run/valkey.sock?virtual_host=1'
    """
    if url.startswith("unix:"):
        return re.sub(r"([?&])db=", r"\1virtual_host=", url.replace("unix:", "redis+socket:", 1))
    return url
