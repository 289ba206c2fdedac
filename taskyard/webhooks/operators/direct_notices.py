"""Notices: ready-made bodies, such as Slack's, to a receiver that a setting names and no endpoint row knows yet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import exists, select
from sqlmodel import Session, col

from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.endpoints import EndpointOptions, open_vault, register
from taskyard.webhooks.event_store import delivery_of
from taskyard.webhooks.event_types import OPERATIONAL
from taskyard.webhooks.http.ssrf_policy import check_url
from taskyard.webhooks.models import Endpoint, Event

NOTICE = f"{OPERATIONAL}notice"  # operational: no filter but its own name gets it

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """A message in a receiver's own format."""

    url: str = field(repr=False)  # those of chat channels are secrets
    body: Mapping[str, Any]
    purpose: str  # description of the endpoint that the URL becomes
    idempotency_key: str


def post_notice(session: Session, settings: Settings, notice: Notice) -> str | None:
    """
    Write a notice into the caller's transaction; the sweeper hands it to the broker, so it comes within its interval.

    The first notice registers the receiver as an endpoint: from then on it has retries, a health record and a place in
    every listing like any other. The body is sent as it is, in no envelope.

    Returns:
        The event's id; None when nothing was written, because the key was used before or the endpoint is disabled.

    Raises:
        UrlRefusedError: The URL is malformed or may not be called.
        EndpointError: The setting WEBHOOK_SECRET_KEYS is missing.
    """
    if session.scalar(select(exists().where(col(Event.idempotency_key) == notice.idempotency_key))):
        return None
    endpoint = _endpoint(session, settings, notice)
    if not endpoint.enabled:
        log.warning("webhook.notice_skipped", endpoint_id=str(endpoint.id), reason=endpoint.disabled_reason)
        return None
    text = json.dumps(notice.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    event = Event(id=f"msg_{uuid4().hex}", type=NOTICE, body=text.encode(), idempotency_key=notice.idempotency_key)
    session.add(event)
    session.flush()
    delivery = delivery_of(event, endpoint.id)
    delivery.enqueued_at = None  # no task is under way: the sweeper makes one
    session.add(delivery)
    session.flush()
    return event.id


def check_receiver(settings: Settings, url: str) -> str:
    """
    Return the URL in normal form, if a notice may be posted to it.

    Raises:
        UrlRefusedError: The URL is malformed or may not be called.
        EndpointError: The setting WEBHOOK_SECRET_KEYS is missing.
    """
    open_vault(settings)
    nets = [ip_network(net) for net in settings.webhook_allow_nets]
    return check_url(url, allow_http=settings.webhook_allow_http, allow_nets=nets)


def _endpoint(session: Session, settings: Settings, notice: Notice) -> Endpoint:
    url = check_receiver(settings, notice.url)
    found = session.scalars(
        select(Endpoint)
        .where(col(Endpoint.url) == url, col(Endpoint.description) == notice.purpose)
        .order_by(col(Endpoint.created_at))
        .limit(1)
    ).first()
    if found is not None:
        return found
    options = EndpointOptions(description=notice.purpose, sends_predictify=False)
    endpoint, _ = register(session, settings, url, [NOTICE], options)
    return endpoint
