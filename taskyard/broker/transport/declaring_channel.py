"""How a channel declares queues and exchanges, and keeps their bindings in kombu's tables."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import redis

from taskyard.broker.scripts.text_script import TextScript
from taskyard.broker.transport import declarations
from taskyard.broker.untyped import REFRESH_BINDING, SWEEP_BINDINGS, RedisChannel

log = logging.getLogger(__name__)


class DeclaringChannel(RedisChannel):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Kombu's channel, which refuses what would be ignored and needs neither memory nor SCRIPT to bind."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.lifetimes: dict[str, int] = {}  # ms that a temporary queue keeps a message; 0: for ever
        super().__init__(*args, **options)

    def queue_declare(self, queue: Any = None, passive: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Declare a queue that asks for nothing that would be ignored."""
        declarations.check_queue(queue, options.get("arguments"), is_temporary=bool(options.get("auto_delete")))
        self.lifetimes[queue] = declarations.lifetime_ms(options.get("arguments"))
        return super().queue_declare(queue, passive, **options)

    def exchange_declare(self, exchange: Any = None, type: Any = "direct", **options: Any) -> None:  # noqa: A002 - kombu's signature
        """Declare an exchange that asks for nothing that would be ignored."""
        declarations.check_exchange(exchange, type, options.get("arguments"))
        super().exchange_declare(exchange, type, **options)

    def queue_bind(
        self, queue: Any, exchange: Any = None, routing_key: Any = "", arguments: Any = None, **options: Any
    ) -> None:
        """Bind a queue by its routing key."""
        declarations.check_binding(queue, arguments)
        super().queue_bind(queue, exchange, routing_key, arguments, **options)

    def _queue_bind(self, exchange: str, *routing: Any) -> None:
        """Start even when a full server refuses to store the binding: workers are how it empties."""
        try:
            super()._queue_bind(exchange, *routing)
        except redis.exceptions.OutOfMemoryError:
            log.warning("the broker has reached maxmemory, the binding of %s to %s is lost", routing[-1], exchange)

    def _refresh_bindings(self, queues: list[str]) -> None:
        try:
            super()._refresh_bindings(queues)
        except redis.exceptions.OutOfMemoryError:
            log.debug("the broker has reached maxmemory, bindings of %s are not renewed", queues)

    @cached_property
    def _refresh_binding(self) -> Any:
        return TextScript(self._create_client(), REFRESH_BINDING)

    @cached_property
    def _sweep_bindings(self) -> Any:
        return TextScript(self._create_client(), SWEEP_BINDINGS)
