"""Maintenance tasks: retention, and bulk operations on dead letters."""

from datetime import timedelta

from taskyard.database.engine import open_session
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.declaration import task
from taskyard.tasks.policy import Exponential, Policy
from taskyard.tasks.records import bulk, handlers
from taskyard.tasks.records.payloads import CleanUpRecords, ResolveDeadLetters
from taskyard.tasks.reporting import progress

# Outlasts a database outage of two hours.
PATIENT = Policy(max_attempts=15, backoff=Exponential(base=timedelta(seconds=5), cap=timedelta(minutes=10)))


@task("audit.cleanup", CleanUpRecords, queue=MAINTENANCE, policy=PATIENT)
def cleanup(payload: CleanUpRecords) -> dict[str, int]:
    """Delete old records; see :func:`taskyard.tasks.records.handlers.clean_up`."""
    return handlers.clean_up(payload, open_session, current_settings())


@task("dead_letters.resolve", ResolveDeadLetters, queue=MAINTENANCE, policy=PATIENT)
def resolve_dead_letters(payload: ResolveDeadLetters) -> dict[str, int]:
    """Redrive or discard many; see :func:`taskyard.tasks.records.bulk.resolve_dead_letters`."""
    return bulk.resolve_dead_letters(payload, open_session, progress)
