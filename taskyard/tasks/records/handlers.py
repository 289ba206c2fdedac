"""Delete old records."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta

from sqlmodel import Session

from taskyard.database.columns import utc_now
from taskyard.history.retention import prune
from taskyard.settings.platform import Settings
from taskyard.tasks.records.payloads import CleanUpRecords


def clean_up(payload: CleanUpRecords, open_session: Callable[[], Session], settings: Settings) -> dict[str, int]:
    """
    Delete records that are older than the retention, in batches; return how many of each kind.

    Safe to run twice: deleted rows are not found again. A retention of 0 days keeps everything.
    """
    days = settings.audit_log_retention_days if payload.retention_days is None else payload.retention_days
    return asdict(prune(open_session, utc_now() - timedelta(days=days))) if days else {}
