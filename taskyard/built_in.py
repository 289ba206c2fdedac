"""The domains of the library, which every app has: the records, and webhooks."""

from collections.abc import Iterator
from typing import Any

from taskyard.beat.entries import Entry, cron, every
from taskyard.domain import CommandGroup, Domain
from taskyard.history.audit_policy import current_policy
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import DEAD_LETTERS, DEFAULT, MAINTENANCE, SLOW_WEBHOOKS, WEBHOOKS

RECORDS_DOMAIN = Domain(
    "records",
    tasks=("taskyard.tasks.dead_letters.task", "taskyard.tasks.records.tasks"),
    queues=(DEFAULT, DEAD_LETTERS, MAINTENANCE),
    timetable="taskyard.built_in:records_timetable",
)
WEBHOOKS_DOMAIN = Domain(
    "webhooks",
    tasks=("taskyard.webhooks.tasks",),
    queues=(WEBHOOKS, SLOW_WEBHOOKS),
    timetable="taskyard.built_in:webhooks_timetable",
    gauges="taskyard.webhooks.metrics:figures",
    commands=(
        CommandGroup("webhooks", "taskyard.cli.webhooks.commands", "Webhooks: endpoints, deliveries, send again."),
    ),
)
FLOWS_DOMAIN = Domain(
    "flows",
    tasks=("taskyard.flows.tasks",),
    timetable="taskyard.built_in:flows_timetable",
    gauges="taskyard.flows.metrics:figures",
    checks="taskyard.flows.checks:findings",
    commands=(
        CommandGroup(
            "flows", "taskyard.cli.flows.commands", "Flows: list, show, resume, retry, skip, approve, cancel."
        ),
    ),
)
BUILT_IN = (RECORDS_DOMAIN, WEBHOOKS_DOMAIN, FLOWS_DOMAIN)


def records_timetable() -> Iterator[Entry[Any]]:
    """When old records are removed."""
    from taskyard.tasks.records.payloads import CleanUpRecords  # noqa: PLC0415 - only beat needs the tasks
    from taskyard.tasks.records.tasks import cleanup  # noqa: PLC0415 - as above

    yield Entry(
        "audit.cleanup",
        cleanup,
        CleanUpRecords(),
        cron(current_policy().cleanup_cron),
        is_enabled=current_settings().audit_log_retention_days > 0,
        needs="AUDIT_LOG_RETENTION_DAYS above 0",
        note="Deletes records that are older than AUDIT_LOG_RETENTION_DAYS",
    )


def webhooks_timetable() -> Iterator[Entry[Any]]:
    """How often deliveries that are due are looked for, and when old ones are removed."""
    from taskyard.webhooks.payloads import CleanUpWebhooks, SweepWebhooks  # noqa: PLC0415 - only beat needs the tasks
    from taskyard.webhooks.tasks import cleanup, sweep  # noqa: PLC0415 - as above

    yield Entry(
        "webhooks.sweep",
        sweep,
        SweepWebhooks(),
        every(current_settings().webhook_sweep_interval),
        misfire="skip",
        note="Enqueues deliveries that are due, and takes back leases that ran out",
    )
    yield Entry(
        "webhooks.cleanup",
        cleanup,
        CleanUpWebhooks(),
        cron("30 3 * * *"),
        misfire="skip",
        note="Deletes events, deliveries, attempts and excerpts that are older than WEBHOOK_..._RETENTION_DAYS",
    )


def flows_timetable() -> Iterator[Entry[Any]]:
    """How often flows are looked after."""
    from taskyard.flows.payloads import SweepFlows  # noqa: PLC0415 - only beat needs the tasks
    from taskyard.flows.tasks import sweep  # noqa: PLC0415 - as above

    yield Entry(
        "flows.sweep",
        sweep,
        SweepFlows(),
        every(current_settings().flow_sweep_interval),
        misfire="skip",
        note="Sends lost steps of flows again, and ends those that are too late",
    )
