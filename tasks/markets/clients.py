"""What the markets need of other parts of the platform, as Protocols."""

from typing import Any, Protocol

from sqlmodel import Session


class EmitEvent(Protocol):
    """Write a webhook event in an open transaction; see :func:`taskyard.webhooks.outbox.emit`."""

    def __call__(self, session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
        """Return the event's id."""
