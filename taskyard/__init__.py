"""
A task platform on Celery and Redis or Valkey: typed tasks, leases, dead letters, history, schedules, webhooks.

These are the public names; they are imported when they are first used, so that a command that needs few starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskyard.app import Taskyard
    from taskyard.domain import CommandGroup, Domain, Tables
    from taskyard.flows.definition.flow import Flow
    from taskyard.flows.definition.polling import Poll
    from taskyard.flows.release.starting import FlowRun
    from taskyard.flows.running.current import Pending, add_steps, failures_of, result_of, results_of
    from taskyard.flows.steering import cancel_flow, resume_flow, signal_flow
    from taskyard.history.audit_policy import AuditPolicy
    from taskyard.settings.queues import DEFAULT, MAINTENANCE, Queue
    from taskyard.tasks.call_options import CallOptions, RunHandle
    from taskyard.tasks.declaration import TypedTask, task
    from taskyard.tasks.errors import (
        InvalidPayloadError,
        PermanentError,
        RetryAfter,
        Snooze,
        Superseded,
        UnknownTaskError,
    )
    from taskyard.tasks.payloads import Hidden, Payload, Secret
    from taskyard.tasks.policy import Exponential, Policy
    from taskyard.tasks.reporting import progress
    from taskyard.tasks.sending import enqueue_many, find_task, send
    from taskyard.tasks.start_checks import before_work
    from taskyard.webhooks.outbox import emit

_HOMES = {
    "taskyard.app": ("Taskyard",),
    "taskyard.domain": ("CommandGroup", "Domain", "Tables"),
    "taskyard.flows.running.current": ("Pending", "add_steps", "failures_of", "result_of", "results_of"),
    "taskyard.flows.definition.flow": ("Flow",),
    "taskyard.flows.release.starting": ("FlowRun",),
    "taskyard.flows.definition.polling": ("Poll",),
    "taskyard.flows.steering": ("cancel_flow", "resume_flow", "signal_flow"),
    "taskyard.history.audit_policy": ("AuditPolicy",),
    "taskyard.settings.queues": ("DEFAULT", "MAINTENANCE", "Queue"),
    "taskyard.tasks.call_options": ("CallOptions", "RunHandle"),
    "taskyard.tasks.declaration": ("TypedTask", "task"),
    "taskyard.tasks.errors": (
        *("InvalidPayloadError", "PermanentError", "RetryAfter"),
        *("Snooze", "Superseded", "UnknownTaskError"),
    ),
    "taskyard.tasks.payloads": ("Hidden", "Payload", "Secret"),
    "taskyard.tasks.policy": ("Exponential", "Policy"),
    "taskyard.tasks.reporting": ("progress",),
    "taskyard.tasks.sending": ("enqueue_many", "find_task", "send"),
    "taskyard.tasks.start_checks": ("before_work",),
    "taskyard.webhooks.outbox": ("emit",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT",
    "MAINTENANCE",
    "AuditPolicy",
    "CallOptions",
    "CommandGroup",
    "Domain",
    "Exponential",
    "Flow",
    "FlowRun",
    "Hidden",
    "InvalidPayloadError",
    "Payload",
    "Pending",
    "PermanentError",
    "Policy",
    "Poll",
    "Queue",
    "RetryAfter",
    "RunHandle",
    "Secret",
    "Snooze",
    "Superseded",
    "Tables",
    "Taskyard",
    "TypedTask",
    "UnknownTaskError",
    "add_steps",
    "before_work",
    "cancel_flow",
    "emit",
    "enqueue_many",
    "failures_of",
    "find_task",
    "progress",
    "result_of",
    "results_of",
    "resume_flow",
    "send",
    "signal_flow",
    "task",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'taskyard' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
