"""
When the application's work is done, at one glance; which task comes then, each domain's own timetable says.

Times of day are UTC. Nothing heavy shares an hour: records are cleaned up, then backups verified.
"""

from config.settings import MarketSettings, ReconciliationSettings
from taskyard.beat import When, cron, every
from taskyard.settings import current_settings

VERIFY_BACKUPS = cron("0 4 * * *")


def reconcile_markets() -> When:
    """
    Once a night, unless RECONCILIATION_SCHEDULE says otherwise.

    Raises:
        SettingsError: It is no cron expression.
    """
    settings = current_settings(ReconciliationSettings)
    return cron(settings.reconciliation_schedule, variable="RECONCILIATION_SCHEDULE")


def sweep_reconciliations() -> When:
    """How often old reports are looked for."""
    return every(current_settings(ReconciliationSettings).reconciliation_sweep_interval)


def confirm_predictions() -> When:
    """How often the transactions of pending predictions are looked for."""
    return every(current_settings(MarketSettings).market_confirm_interval)
