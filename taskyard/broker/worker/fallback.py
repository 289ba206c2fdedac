"""Events, retries and dead letters without a lease: on stock kombu, and for messages acknowledged early."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from taskyard.broker.protocol.header import BURY_TASK, DEAD_LETTER_QUEUE, HEADER
from taskyard.broker.protocol.outcomes import Completed, DeadLettered, Outcome
from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.server.client import shared_client

if TYPE_CHECKING:
    from taskyard.broker.scripts.shared_names import EventKind


class UnleasedRequest(Protocol):
    """What is needed of Celery's request, and of ours."""

    app: Any
    delivery_info: dict[str, Any] | None
    id: str
    message: Any
    name: str
    request_dict: dict[str, Any]

    def note(self, event: EventKind, facts: str) -> None:
        """Append an event of this execution."""


def append(request: UnleasedRequest, event: str, facts: str) -> None:
    """
    Append one event of this execution.

    Raises:
        redis.RedisError: The broker is away.
    """
    options = request.app.conf.broker_transport_options
    space = Keyspace(options.get("key_prefix", "taskyard:"), bool(options.get("writes_events")))
    url = request.app.conf.broker_url
    if space.writes_events and url:
        queue = (request.delivery_info or {}).get("routing_key") or ""
        attempt = _facts(request).get("attempt", 1)
        run_script(shared_client(url), space, "note", event, request.id, queue, attempt, facts, "", 0)


def apply_outcome(request: UnleasedRequest, ending: Outcome) -> None:
    """Append the event of an outcome that no script writes; a dead letter is sent as an ordinary message."""
    if isinstance(ending, Completed):
        if ending.event:
            request.note(ending.event, ending.detail)
    elif isinstance(ending, DeadLettered):
        request.note("failed", ending.facts)
        send_dead_letter(request, ending)


def send_dead_letter(request: UnleasedRequest, ending: DeadLettered) -> None:
    """Send the dead letter of this execution."""
    known = json.loads(ending.facts)
    message = request.message
    letter = {
        "run_id": request.id,
        "attempt": _facts(request).get("attempt", 1),
        "task": request.name,
        "queue": (request.delivery_info or {}).get("routing_key"),
        "reason": ending.reason,
        "error": known.get("error") or "",
        "message": known.get("message") or "",
        "traceback": known.get("traceback"),
        "stalls": 0,
        "body": base64.b64encode(json.dumps(message.serializable(), default=str).encode()).decode(),
        "headers": json.loads(json.dumps(dict(message.headers), default=str)),
        "failed_at": datetime.now(UTC).isoformat(),
    }
    request.app.send_task(BURY_TASK, kwargs=letter, queue=DEAD_LETTER_QUEUE, ignore_result=True)


def send_copy(request: UnleasedRequest, delay: float, *, uses_attempt: bool) -> None:
    """Publish a copy of the message that is due after `delay` seconds; the original is acknowledged after it."""
    message = request.message
    facts = _facts(request)
    headers: dict[str, Any] = dict(message.headers)
    headers[HEADER] = {**facts, "attempt": facts.get("attempt", 1) + int(uses_attempt)}
    headers["retries"] = (headers.get("retries") or 0) + int(uses_attempt)
    headers["eta"] = (datetime.now(UTC) + timedelta(seconds=delay)).isoformat()
    with request.app.producer_or_acquire() as producer:
        producer.publish(
            message.body,
            exchange="",
            routing_key=(request.delivery_info or {}).get("routing_key"),
            headers=headers,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            priority=message.properties.get("priority"),
            correlation_id=request.id,
            retry=True,
        )


def _facts(request: UnleasedRequest) -> dict[str, Any]:
    return request.request_dict.get(HEADER) or {}
