"""What the tasks about flows are given."""

from uuid import UUID

from taskyard.tasks.payloads import Payload

CHECK_DEADLINE = "flows.check_deadline"  # name of the task


class SweepFlows(Payload):
    """Look for flows and steps that are due: deadlines, lost messages, inner flows that have ended."""


class CheckDeadline(Payload):
    """A deadline is due."""

    flow_id: UUID
    seq: int | None = None  # of the step; None: the flow as a whole
