"""Payloads of the maintenance tasks."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from taskyard.tasks.payloads import Payload


class CleanUpRecords(Payload):
    """Delete records that are older than their retention."""

    retention_days: Annotated[int, Field(ge=0, le=36_500)] | None = None  # None: AUDIT_LOG_RETENTION_DAYS; 0: keep all


class ResolveDeadLetters(Payload):
    """Run one bulk operation on dead letters."""

    operation_id: UUID  # of a row in bulk_operations
