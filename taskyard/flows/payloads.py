"""What the tasks about flows are given."""

from taskyard.tasks.payloads import Payload


class SweepFlows(Payload):
    """Look for flows and steps that are due: deadlines, lost messages, inner flows that have ended."""
