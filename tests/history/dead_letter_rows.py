"""Dead letters as the broker reports them, for tests."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlmodel import Session

from taskyard.history.dead_letters import insert_dead_letter
from taskyard.history.models import DeadLetter
from taskyard.tasks.dead_letters.task import BuryRun, dead_letter_row
from tests.history import records_app

FAILED_AT = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def body_of(fields: dict[str, Any]) -> bytes:
    """The body of a task message."""
    return json.dumps([[], fields, EMBED]).encode()


def envelope_of(fields: dict[str, Any], *, priority: int = 5) -> bytes:
    """The whole message, as the broker keeps it."""
    properties = {"body_encoding": "base64", "priority": priority, "delivery_info": {"routing_key": "celery"}}
    body = b64encode(body_of(fields)).decode()
    return json.dumps({"body": body, "headers": {"task": "records.greet"}, "properties": properties}).encode()


def report(fields: dict[str, Any] | None = None, *, raw: bytes | None = None, **facts: Any) -> dict[str, Any]:
    """The keyword arguments of `dead_letter.bury`."""
    if raw is None:
        raw = body_of(fields or {"name": "Ada", "token": "hunter2"})
    known = {
        "run_id": str(uuid4()),
        "attempt": 1,
        "task": records_app.greet.name,
        "queue": "celery",
        "reason": "exhausted",
        "error": "ValueError",
        "message": "no such order 17",
        "traceback": None,
        "stalls": 0,
        "body": b64encode(raw).decode(),
        "headers": {"id": "x", "task": "records.greet", "root_id": "root-1"},
        "failed_at": FAILED_AT.isoformat(),
    }
    return known | facts


def put(session: Session, fields: dict[str, Any] | None = None, **facts: Any) -> DeadLetter:
    """Store a dead letter and return it."""
    letter = dead_letter_row(BuryRun.from_wire(report(fields, **facts)))
    assert insert_dead_letter(session, letter)
    session.commit()
    return letter
