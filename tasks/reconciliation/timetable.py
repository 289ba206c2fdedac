"""When markets are compared with the chain, and old reports removed."""

from collections.abc import Iterator
from typing import Any

from beat.timetable import reconcile_markets, sweep_reconciliations
from config.settings import ReconciliationSettings
from tasks.reconciliation.payloads import Reconcile, SweepReconciliations
from tasks.reconciliation.tasks import reconcile, sweep
from taskyard.beat import Entry
from taskyard.settings import current_settings


def entries() -> Iterator[Entry[Any]]:
    """The nightly comparison, and what removes old reports."""
    yield Entry(
        "reconciliation.sweep",
        sweep,
        SweepReconciliations(),
        sweep_reconciliations(),
        misfire="skip",
        note="Removes old reports",
    )
    yield Entry(
        "reconciliation.nightly",
        reconcile,
        Reconcile(type="global"),
        reconcile_markets(),
        is_enabled=current_settings(ReconciliationSettings).reconciliation_enabled,
        needs="RECONCILIATION_ENABLED=true",
        overlap="skip",
        note="Compares all markets with the chain",
    )
