"""The tasks about records: one line of work each."""

from datetime import timedelta

from config.database import open_session
from config.queues import MAINTENANCE
from config.settings import current_settings
from tasks.app import task
from tasks.policy import Exponential, Policy
from tasks.records import handlers
from tasks.records.payloads import CleanUpAudit

# A database that is away for two hours costs no clean-up its day.
PATIENT = Policy(max_attempts=15, backoff=Exponential(base=timedelta(seconds=5), cap=timedelta(minutes=10)))


@task("audit.cleanup", CleanUpAudit, queue=MAINTENANCE, policy=PATIENT)
def cleanup(payload: CleanUpAudit) -> dict[str, int]:
    """Delete old records; see :func:`tasks.records.handlers.clean_up`."""
    return handlers.clean_up(payload, open_session, current_settings())
