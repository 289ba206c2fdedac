"""The timetable: every schedule that code owns. A name is its identity; changing a line changes the schedule."""

from typing import Any

from tasks.backups.payloads import VerifyBackup
from tasks.backups.tasks import verify
from tasks.markets.payloads import ConfirmPredictions
from tasks.markets.tasks import confirm
from tasks.reconciliation.payloads import Reconcile, SweepReconciliations
from tasks.reconciliation.tasks import reconcile
from tasks.reconciliation.tasks import sweep as sweep_reconciliations
from taskyard.beat.entries import Entry, When, cron, every
from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.cron import CronExpression
from taskyard.settings.platform import Settings, SettingsError
from taskyard.tasks.records.payloads import CleanUpAudit
from taskyard.tasks.records.tasks import cleanup
from taskyard.webhooks.payloads import SweepWebhooks
from taskyard.webhooks.tasks import sweep as sweep_webhooks


def timetable(settings: Settings) -> tuple[Entry[Any], ...]:
    """
    Return the entries of this platform under these settings.

    Raises:
        SettingsError: A setting that says when is no such text.
    """
    return (*_sweeps(settings), *_daily(settings))


def _sweeps(settings: Settings) -> tuple[Entry[Any], ...]:
    """Return what looks at all that is due, so that a slot that was missed is no loss."""
    return (
        Entry(
            "webhooks.sweep",
            sweep_webhooks,
            SweepWebhooks(),
            every(settings.webhook_sweep_interval),
            misfire="skip",
            note="Enqueues deliveries that are due, and takes back leases that ran out",
        ),
        Entry(
            "markets.confirm",
            confirm,
            ConfirmPredictions(),
            every(settings.market_confirm_interval),
            misfire="skip",
            overlap="skip",
            note="Looks for the transactions of pending predictions",
        ),
        Entry(
            "reconciliation.sweep",
            sweep_reconciliations,
            SweepReconciliations(),
            every(settings.reconciliation_sweep_interval),
            misfire="skip",
            note="Looks after global runs that lost a worker, and removes old reports",
        ),
    )


def _daily(settings: Settings) -> tuple[Entry[Any], ...]:
    return (
        Entry(
            "reconciliation.nightly",
            reconcile,
            Reconcile(type="global"),
            _cron_of("RECONCILIATION_SCHEDULE", settings.reconciliation_schedule),
            is_enabled=settings.reconciliation_enabled,
            overlap="skip",
            note="Compares all markets with the chain",
        ),
        Entry(
            "audit.cleanup",
            cleanup,
            CleanUpAudit(),
            cron("0 3 * * *"),
            is_enabled=settings.audit_log_retention_days > 0,
            note="Deletes records that are older than AUDIT_LOG_RETENTION_DAYS",
        ),
        Entry(
            "backups.verify",
            verify,
            VerifyBackup(),
            cron("0 4 * * *"),
            is_enabled=settings.backup_profiles is not None or settings.backup_dump_path is not None,
            note="Restores the newest backup of every profile",
        ),
    )


def _cron_of(variable: str, text: str) -> When:
    try:
        return cron(CronExpression(text).text)
    except InvalidScheduleError as error:
        raise SettingsError(f"{variable}: {error}") from error
