"""Payloads of the webhook tasks: ids, never bodies or secrets."""

from uuid import UUID

from taskyard.tasks.payloads import Payload


class DeliverWebhook(Payload):
    """One attempt, or several with waits in between, to send one stored delivery."""

    delivery_id: UUID  # of a row in webhook_deliveries
    manual_by: str | None = None  # an operator asked for exactly one attempt now


class FanOutEvent(Payload):
    """Make the deliveries of an event that more endpoints want than one transaction should write."""

    event_id: str  # of a row in webhook_events


class CleanUpWebhooks(Payload):
    """Delete what is older than its retention."""


class SweepWebhooks(Payload):
    """Enqueue what is due and has no live task."""
