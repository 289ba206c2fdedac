"""The task that writes dead letters; it is itself retried until the row is stored."""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self
from uuid import uuid4

from pydantic import ConfigDict

from taskyard.broker.protocol.header import BURY_TASK
from taskyard.database.engine import open_session
from taskyard.history.dead_letters import insert_dead_letter
from taskyard.history.events import LARGEST, MAX_ID, MAX_NAME
from taskyard.history.models import DeadLetter
from taskyard.history.writer.error_signatures import error_signature
from taskyard.history.writer.truncation import ERROR_BYTES, TRACEBACK_BYTES, clean_json, clip, clip_middle
from taskyard.settings.queues import DEAD_LETTERS
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import InvalidPayloadError
from taskyard.tasks.payloads import Hidden, Payload
from taskyard.tasks.policy import Exponential, Policy

MAX_REASON = 32  # characters
HEADERS_BYTES = 1_048_576  # of a message's headers as JSON
UNTIL_STORED = Policy(  # outlasts any database outage: about two years of one try a minute
    max_attempts=1_000_000, backoff=Exponential(base=timedelta(seconds=1), cap=timedelta(minutes=1))
)


class BuryRun(Payload):
    """
    A run that failed for good, with what is needed to run it again.

    Unlike other payloads it ignores fields that it does not know: a newer worker may say more, and nothing that it says
    is worth losing the dead_letter.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)

    run_id: str
    attempt: int = 1  # the execution that failed, from 1
    task: str | None = None  # None: the message was undecodable
    queue: str | None = None
    reason: str = ""  # exhausted, permanent, invalid_payload, time_limit, stalled, unknown_task, malformed, ...
    error: str = ""  # type of the error
    message: str = ""
    traceback: str | None = None
    body: Annotated[str, Hidden()]  # base64 of the message's bytes
    headers: Annotated[dict[str, Any] | None, Hidden()] = None  # of the message
    failed_at: datetime

    @classmethod
    def from_wire(cls, kwargs: Mapping[str, Any]) -> Self:
        """
        Make it from a message's keyword arguments, whatever they are: a dead letter that is refused would be lost.

        Lone surrogates and NUL are replaced; of fields of a wrong type only their text is kept.
        """
        cleaned = clean_json(dict(kwargs), LARGEST)
        try:
            return super().from_wire(cleaned)
        except InvalidPayloadError:
            return super().from_wire(_last_resort(cleaned))


@task(BURY_TASK, BuryRun, queue=DEAD_LETTERS, policy=UNTIL_STORED)
def bury(payload: BuryRun) -> None:
    """
    Write the dead letter of a run.

    Safe to run twice: there is one row per attempt of a run, and the first one is kept.
    """
    with open_session() as session:
        insert_dead_letter(session, dead_letter_row(payload))
        session.commit()
    for listener in _listeners:
        listener(payload)


type Listener = Callable[[BuryRun], None]

_listeners: list[Listener] = []


def when_buried(listener: Listener) -> Listener:
    """Tell somebody of every dead letter once it is stored; if that fails, the letter is stored, and told, again."""
    _listeners.append(listener)
    return listener


def dead_letter_row(payload: BuryRun) -> DeadLetter:
    """Return the row of a buried run, with sanitized and truncated texts."""
    error_type = clip(payload.error, MAX_NAME) or "Error"
    message = clip(payload.message, ERROR_BYTES)
    traceback = clip_middle(payload.traceback, TRACEBACK_BYTES) if payload.traceback else None
    return DeadLetter(
        run_id=clip(payload.run_id, MAX_ID),
        attempt=min(max(payload.attempt, 0), LARGEST),
        task=clip(payload.task, MAX_NAME) if payload.task else None,
        queue=clip(payload.queue or "", MAX_NAME),
        reason=clip(payload.reason, MAX_REASON),
        error_type=error_type,
        error_message=message,
        error_signature=error_signature(error_type, message, traceback),
        traceback=traceback,
        body=_bytes_of(payload.body),
        headers=clean_json(payload.headers, HEADERS_BYTES) if payload.headers else None,
        failed_at=payload.failed_at.astimezone(),
    )


def _last_resort(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields that fit, from a dead letter of which some do not."""
    texts = {name: str(given.get(name) or "") for name in ("run_id", "queue", "reason", "error", "message")}
    task_name, headers, body = given.get("task"), given.get("headers"), given.get("body")
    return {
        **texts,
        "run_id": texts["run_id"] or f"unknown-{uuid4()}",
        "reason": texts["reason"] or "malformed",
        "attempt": given["attempt"] if type(given.get("attempt")) is int else 1,
        "task": task_name if isinstance(task_name, str) else None,
        "headers": headers if isinstance(headers, dict) else None,
        "body": body if isinstance(body, str) else b64encode(repr(dict(given)).encode(errors="replace")).decode(),
        "failed_at": _moment_of(given.get("failed_at")).isoformat(),
    }


def _moment_of(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return datetime.now(UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _bytes_of(body: str) -> bytes:
    """Decode base64; anything else is kept as it came, for inspection."""
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return body.encode(errors="replace")
