"""Send a test event to one endpoint; signed, delivered and recorded like any other."""

import json
from uuid import UUID, uuid4

from sqlmodel import Session

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_store import delivery_of
from taskyard.webhooks.models import Event
from taskyard.webhooks.operators.replay import find_enabled

TEST_EVENT = "webhook.test"


def add_test(session: Session, endpoint_id: UUID) -> DueDelivery:
    """
    Write a test event with a delivery to this endpoint only, whatever it subscribed to; the caller commits.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        EndpointDisabledError: It is disabled.
    """
    find_enabled(session, endpoint_id)
    now = utc_now()
    envelope = {"type": TEST_EVENT, "timestamp": now.isoformat(), "data": {"endpoint_id": str(endpoint_id)}}
    body = json.dumps(envelope, separators=(",", ":")).encode()
    event = Event(id=f"msg_{uuid4().hex}", type=TEST_EVENT, body=body, created_at=now)
    session.add(event)
    session.flush()  # the delivery refers to it
    delivery = delivery_of(event, endpoint_id)
    session.add(delivery)
    session.flush()
    return DueDelivery(delivery.id, endpoint_id)
