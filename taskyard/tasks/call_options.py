"""Options of a call, and the handle that it returns."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from celery.result import AsyncResult

from taskyard.broker.protocol.header import HEADER, Dedup
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import NORMAL, PriorityName, priority_number
from taskyard.tasks.option_checks import OURS, check_options


class RunHandle(AsyncResult[Any]):
    """The handle of an enqueued task; ``id`` is its run id for ``celery -A tasks jobs show``."""

    is_duplicate: bool = False  # True: nothing was sent, a run with the same dedup key is already there


class CallOptions(TypedDict, total=False):
    """Options of ``apply_async`` beside Celery's own."""

    priority: PriorityName | int  # high, normal, low, or 0-9 (9 first)
    countdown: float  # seconds from now
    eta: datetime  # aware, or taken as UTC
    expires: float | datetime  # seconds or moment after which it must not start any more
    max_attempts: int  # executions in total, instead of the policy's
    lifo: bool  # goes before all that wait with the same priority
    group_key: str  # fairness and per-key limits: one tenant, one endpoint, one market
    dedup_key: str  # at most one run with this key ...
    throttle: timedelta  # ... within this time (instead of: until it is done)
    debounce: timedelta  # ... the last call wins, after so long without a new one
    user_id: str  # on whose behalf; kept in its history
    soft_time_limit: float  # seconds
    time_limit: float  # seconds


def message_options(shown: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """
    Turn call options into Celery's options: ours move into one header, the rest stays.

    Args:
        shown: The payload's values, hidden ones masked.
        options: Changed.

    Raises:
        ValueError: An option is unknown or has a value without meaning, or two options contradict each other.
    """
    check_options(options)
    ours = {name: options.pop(name) for name in OURS & options.keys()}
    header: dict[str, Any] = {"args": shown}
    if not current_settings().audit_enabled:
        header["unrecorded"] = True
    header |= {name: ours[name] for name in ("max_attempts", "group_key", "user_id", "lifo") if ours.get(name)}
    if (dedup := _dedup(ours)) is not None:
        header["dedup"] = dedup
        if dedup["mode"] == "debounce" and not ("eta" in options or "countdown" in options):
            options["countdown"] = ours["debounce"].total_seconds()
    if options.get("eta") is not None and options.get("countdown") is not None:
        raise ValueError("countdown and eta exclude each other")
    header |= durations(options)
    options["priority"] = priority_number(options.get("priority", NORMAL))
    options["kwargsrepr"] = repr(header["args"])
    options["headers"] = {**(options.get("headers") or {}), HEADER: header}
    return options


def durations(options: Mapping[str, Any]) -> dict[str, int]:
    """Return the facts of a message that keep durations as such: the caller's clock does not matter."""
    countdown, expires = options.get("countdown"), options.get("expires")
    is_delayed = options.get("eta") is None and (countdown or 0) > 0
    facts = {"delay_ms": round(countdown * 1000)} if is_delayed and countdown else {}
    if isinstance(expires, int | float):
        facts["expires_in_ms"] = max(round(expires * 1000), 1)
    return facts


def _dedup(ours: dict[str, Any]) -> Dedup | None:
    modes: list[Literal["throttle", "debounce"]] = [m for m in ("throttle", "debounce") if ours.get(m) is not None]
    if ours.get("dedup_key") is None:
        if modes:
            raise ValueError(f"{modes[0]} needs a dedup_key")
        return None
    if len(modes) > 1:
        raise ValueError("throttle and debounce exclude each other")
    if not modes:
        return Dedup(key=ours["dedup_key"], mode="until_done", ttl_ms=None)
    span: timedelta = ours[modes[0]]
    return Dedup(key=ours["dedup_key"], mode=modes[0], ttl_ms=int(span / timedelta(milliseconds=1)))
