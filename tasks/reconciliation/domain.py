"""The manifest of reconciliation: all that the platform needs to know of this folder."""

from pathlib import Path

from config.queues import RECONCILIATION
from config.settings import ReconciliationSettings
from taskyard import CommandGroup, Domain, Tables

RECONCILIATION_DOMAIN = Domain(
    "reconciliation",
    tasks=("tasks.reconciliation.tasks",),
    queues=(RECONCILIATION,),
    settings=ReconciliationSettings,
    timetable="tasks.reconciliation.timetable:entries",
    gauges="tasks.reconciliation.metrics:figures",
    commands=(
        CommandGroup("recon", "tasks.reconciliation.cli", "Reconciliation with the chain: run, report, drifts."),
    ),
    tables=Tables("tasks.reconciliation.models", Path(__file__).parent / "migrations"),
)
