"""Celery's settings for the transport that the platform's settings choose."""

import re
from datetime import timedelta
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs, urlsplit, urlunsplit

from celery.signals import before_task_publish
from kombu.transport import TRANSPORT_ALIASES

from taskyard.broker.admin.flower import show_in_flower
from taskyard.broker.protocol.envelope import give_normal_priority

MS = timedelta(milliseconds=1)
SENTINEL_PORT = 26379
SOCKET_ALIAS = "taskyard"  # in a URL for a unix socket kombu takes the transport from the part before the "+"
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
        """A message with more stalls becomes a dead letter."""

    @property
    def taskyard_key_prefix(self) -> str:
        """Put before every key of ours."""

    @property
    def audit_enabled(self) -> bool:
        """False: no events are written."""


def transport_settings(settings: TransportSettings) -> dict[str, Any]:
    """
    Return Celery's settings for the platform's transport, or for stock kombu.

    Raises:
        ValueError: The URL names several servers that are no sentinels.
    """
    url, sentinel = read_url(settings.redis_url)
    options: dict[str, Any] = {
        "key_prefix": settings.taskyard_key_prefix,
        "writes_events": settings.audit_enabled,
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "max_connections": 200,  # a green pool needs one for each slot
        **sentinel,
    }
    common = {
        "broker_url": url,
        "result_backend": url,
        "result_backend_transport_options": _result_options(settings.taskyard_key_prefix, sentinel),
        "broker_transport_options": options,
        "worker_consumer": "taskyard.broker.worker.consumer:Consumer",
    }
    interval_ms = int(settings.worker_queue_stalled_interval / MS)
    if settings.taskyard_transport == "redis":
        options.update(visibility_timeout=interval_ms / 1000, unacked_restore_interval=1, unacked_restore_throttle=1)
        options.update(global_keyprefix=settings.taskyard_key_prefix)
        return common
    before_task_publish.connect(give_normal_priority)
    options.update(lease_ms=interval_ms, max_stalls=settings.worker_max_stalls)
    TRANSPORT_ALIASES[SOCKET_ALIAS] = "taskyard.broker.transport.transport:Transport"
    name = "SentinelTransport" if sentinel else "Transport"
    ours = {
        **common,
        "broker_url": url.replace("redis+socket:", f"{SOCKET_ALIAS}+socket:", 1),
        "broker_transport": f"taskyard.broker.transport.transport:{name}",
        # Messages of an earlier connection count as prefetched by themselves: Celery need not lower the limit.
        "worker_enable_prefetch_count_reduction": False,
    }
    show_in_flower(ours)
    return ours


def _result_options(prefix: str, sentinel: dict[str, Any]) -> dict[str, Any]:
    """Options of the result backend; its keys and channels carry the prefix like all others."""
    options = {"master_name": sentinel["master_name"]} if sentinel else {}
    return {**options, "global_keyprefix": prefix}


def read_url(url: str) -> tuple[str, dict[str, Any]]:
    """
    Return the URL as kombu writes it, and the transport options of a Sentinel URL ({} for others).

    >>> read_url("unix:///run/valkey.sock?db=1")
    ('redis+socket:///run/valkey.sock?virtual_host=1', {})
    >>> url, options = read_url("sentinel://a:26379;sentinel://b:26379/0?master_name=main")
    >>> url, options["sentinels"], options["master_name"]
    ('sentinel://a:26379/0', [('a', 26379), ('b', 26379)], 'main')

    Raises:
        ValueError: It names several servers that are no sentinels.
    """
    if url.startswith("unix:"):
        return re.sub(r"([?&])db=", r"\1virtual_host=", url.replace("unix:", "redis+socket:", 1)), {}
    if not url.startswith("sentinel:"):
        if ";" in url:
            raise ValueError("one URL names one server; for fail-over use sentinel:// URLs")
        return url, {}
    plain, _, query = url.partition("?")
    parts = [urlsplit(part) for part in plain.split(";")]
    # One URL only: kombu would go on with the next of several under its own transport.
    single = urlunsplit(parts[0]._replace(path=next((part.path for part in parts if part.path), "")))
    master = parse_qs(query).get("master_name", [DEFAULT_MASTER])[0]
    return single, {"master_name": master, "sentinels": [(part.hostname, part.port or SENTINEL_PORT) for part in parts]}
