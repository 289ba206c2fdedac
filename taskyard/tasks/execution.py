"""Facts about the running execution of a task, from its message."""

from collections.abc import Mapping
from typing import Any, cast

from taskyard.broker.protocol.header import HEADER, MessageFacts
from taskyard.tasks.platform_task import PlatformTask


def attempt_number(task: PlatformTask) -> int:
    """Return the number of the running attempt, from 1."""
    return _facts(task).get("attempt", 1)


def max_attempts_of(task: PlatformTask) -> int | None:
    """Return how many executions in total its caller allowed; None: the caller did not say."""
    return _facts(task).get("max_attempts")


def queue_of(task: PlatformTask) -> str:
    """Return the queue that the message came from."""
    return str((task.request.delivery_info or {}).get("routing_key") or task.home.name)


def was_redelivered(task: Any) -> bool:
    """Tell whether an earlier worker of this message was lost: it may have done part of the work."""
    delivery: Mapping[str, Any] = task.request.delivery_info or {}
    return bool(delivery.get("redelivered"))


def _facts(task: PlatformTask) -> MessageFacts:
    return cast("MessageFacts", getattr(task.request, HEADER, None) or {})
