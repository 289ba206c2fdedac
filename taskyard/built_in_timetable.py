"""When the tasks of the library's own domains are due; only what reads the timetable imports it."""

from collections.abc import Iterator
from typing import Any

from taskyard.beat.entries import Entry, cron, every
from taskyard.flows.payloads import SweepFlows
from taskyard.flows.tasks import sweep as sweep_flows
from taskyard.history.audit_policy import current_policy
from taskyard.settings.loading import current_settings
from taskyard.tasks.records.payloads import CleanUpAudit
from taskyard.tasks.records.tasks import cleanup as clean_up_records
from taskyard.webhooks.payloads import CleanUpWebhooks, SweepWebhooks
from taskyard.webhooks.tasks import cleanup as clean_up_webhooks
from taskyard.webhooks.tasks import sweep as sweep_deliveries


def records_timetable() -> Iterator[Entry[Any]]:
    """When old records are removed."""
    yield Entry(
        "audit.cleanup",
        clean_up_records,
        CleanUpAudit(),
        cron(current_policy().cleanup_cron),
        is_enabled=current_settings().audit_log_retention_days > 0,
        needs="AUDIT_LOG_RETENTION_DAYS above 0",
        note="Deletes records that are older than AUDIT_LOG_RETENTION_DAYS",
    )


def webhooks_timetable() -> Iterator[Entry[Any]]:
    """How often deliveries that are due are looked for, and when old ones are removed."""
    yield Entry(
        "webhooks.sweep",
        sweep_deliveries,
        SweepWebhooks(),
        every(current_settings().webhook_sweep_interval),
        misfire="skip",
        note="Enqueues deliveries that are due, and takes back leases that ran out",
    )
    yield Entry(
        "webhooks.cleanup",
        clean_up_webhooks,
        CleanUpWebhooks(),
        cron("30 3 * * *"),
        misfire="skip",
        note="Deletes events, deliveries, attempts and excerpts that are older than WEBHOOK_..._RETENTION_DAYS",
    )


def flows_timetable() -> Iterator[Entry[Any]]:
    """How often flows are looked after."""
    yield Entry(
        "flows.sweep",
        sweep_flows,
        SweepFlows(),
        every(current_settings().flow_sweep_interval),
        misfire="skip",
        note="Sends lost steps of flows again, and ends those that are too late",
    )
