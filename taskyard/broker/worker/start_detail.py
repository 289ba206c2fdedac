"""The detail of a `started` event: the worker, and task and arguments of a run that its sender did not record."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from taskyard.broker.protocol.outcomes import detail


def start_detail(request: Any, facts: Mapping[str, Any], pid: int) -> str:
    """
    Return the detail as JSON.

    `facts` is our header. A plain Celery client sends none, and a sender with AUDIT_ENABLED=false writes no `queued`
    event: then this event says what that one would have said.
    """
    if facts.get("args") is not None and not facts.get("unrecorded"):
        return _worker_detail(request.hostname, pid)
    args = _masked_arguments(getattr(request.task, "payload", None), request.kwargs)
    return detail(worker=request.hostname, pid=pid, task=request.name, args=args)


@cache
def _worker_detail(worker: str, pid: int) -> str:
    return detail(worker=worker, pid=pid)


def _masked_arguments(payload: Any, kwargs: Any) -> Any:
    """Return arguments with hidden fields masked; all masked if they do not fit; None without a payload model."""
    if payload is None or not isinstance(kwargs, dict):
        return None
    try:
        return payload.from_wire(kwargs).shown()
    except ValueError:  # nobody can tell which of them are secret
        return {str(name): "***" for name in kwargs}
