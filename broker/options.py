"""Celery's settings for the transport that the platform's settings choose."""

import re
from datetime import timedelta
from typing import Any, Literal, Protocol

EVENTS_KEPT = 100_000  # entries of the event stream; about 50 MB
MS = timedelta(milliseconds=1)


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
    url = kombu_url(settings.redis_url)
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
        "result_backend": None if url.startswith("sentinel:") else settings.redis_url,
        "broker_transport_options": options,
        "worker_consumer": "broker.consumer:Consumer",
        "task_default_priority": 5,
    }
    interval_ms = int(settings.worker_queue_stalled_interval / MS)
    if settings.taskyard_transport == "redis":
        options.update(visibility_timeout=interval_ms / 1000, unacked_restore_interval=1, unacked_restore_throttle=1)
        options.update(global_keyprefix=settings.taskyard_key_prefix)
        return common
    options.update(lease_ms=interval_ms, max_stalls=settings.worker_max_stalls)
    name = "SentinelTransport" if url.startswith("sentinel:") else "Transport"
    return {
        **common,
        "broker_transport": f"broker.transport:{name}",
        # Messages of an earlier connection count as prefetched by themselves: Celery need not lower the limit.
        "worker_enable_prefetch_count_reduction": False,
    }


def kombu_url(url: str) -> str:
    """
    Return the URL as kombu writes it: its scheme for a unix socket is `redis+socket`.

    >>> kombu_url("unix:///run/valkey.sock?db=1")
    'redis+socket:///run/valkey.sock?virtual_host=1'
    """
    if url.startswith("unix:"):
        return re.sub(r"([?&])db=", r"\1virtual_host=", url.replace("unix:", "redis+socket:", 1))
    return url
