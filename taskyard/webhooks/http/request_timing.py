"""Measure the phases of one request through aiohttp's tracing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from types import SimpleNamespace
from typing import Any

import aiohttp

from taskyard.webhooks.http.response import Phases


@dataclass(slots=True)
class RequestTimer:
    """When the phases of one request happened, on the monotonic clock (seconds); None: not yet."""

    started_at: float = field(default_factory=monotonic)
    connecting_at: float | None = None
    resolved_at: float | None = None
    connected_at: float | None = None
    answered_at: float | None = None
    is_reused: bool = False  # the connection had been kept alive

    def phases(self) -> Phases:
        """Return what was measured, up to now."""
        begun = self.resolved_at or self.connecting_at
        return Phases(
            dns_ms=_between(self.connecting_at, self.resolved_at),
            connect_ms=None if self.is_reused else _between(begun, self.connected_at),
            ttfb_ms=_between(self.started_at, self.answered_at),
            total_ms=(monotonic() - self.started_at) * 1000,
        )


def tracing() -> aiohttp.TraceConfig:
    """Return a trace that fills in the `RequestTimer` given as a request's ``trace_request_ctx``."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(_marking("connecting_at"))
    trace.on_dns_resolvehost_end.append(_marking("resolved_at"))
    trace.on_dns_cache_hit.append(_marking("resolved_at"))
    trace.on_connection_create_end.append(_marking("connected_at"))
    trace.on_connection_reuseconn.append(_note_reuse)
    return trace


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000


def _marking(name: str) -> Callable[[aiohttp.ClientSession, SimpleNamespace, Any], Awaitable[None]]:
    async def mark(_session: aiohttp.ClientSession, context: SimpleNamespace, _event: Any) -> None:
        setattr(context.trace_request_ctx, name, monotonic())

    return mark


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _event: Any) -> None:
    timer: RequestTimer = context.trace_request_ctx
    timer.is_reused, timer.connected_at = True, monotonic()
