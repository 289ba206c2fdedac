"""Read the message stored with a dead letter, and show it with hidden fields masked."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskyard.history.models import DeadLetter
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.sending import find_task

CONTINUATION = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}
BODY_PARTS = 3  # of Celery's protocol 2: positional arguments, keyword arguments, continuation
HIDDEN = "***"


class UndecodableError(ValueError):
    """The bytes are not a Celery message that a platform task can run; the text says why."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """The call that a stored message makes."""

    fields: Mapping[str, Any]  # keyword arguments
    positional: Sequence[Any] = ()  # of a plain task
    continuation: Mapping[str, Any] = field(default_factory=dict)  # of a canvas: options of `apply_async`
    priority: int | None = None  # 0-9; None: not kept with the bytes


def read_message(raw: bytes) -> StoredMessage:
    """
    Read a task's body ``[args, kwargs, embed]``, or a whole broker envelope that carries one.

    Raises:
        UndecodableError: It is neither.

    Source: Celery's message protocol, version 2.
    """
    body, priority = _parsed(raw), None
    if isinstance(body, dict):
        priority = _priority_of(body)
        body = _parsed(_body_of(body))
    if not (isinstance(body, list) and len(body) == BODY_PARTS and isinstance(body[1], dict)):
        raise UndecodableError("the message's body is not [args, kwargs, embed]")
    positional, fields, embed = body
    if not isinstance(positional, list):
        raise UndecodableError("the message's body is not [args, kwargs, embed]")
    follow = embed if isinstance(embed, dict) else {}
    return StoredMessage(
        fields, positional, {CONTINUATION[name]: follow[name] for name in CONTINUATION if follow.get(name)}, priority
    )


def shown_fields(dead_letter: DeadLetter) -> dict[str, Any]:
    """
    Return the payload for display.

    Hidden fields are masked if it fits its task's model. If it does not, or the task is unknown, every value is masked,
    because nobody can tell which are secret. Empty: the message cannot be read.
    """
    try:
        fields = read_message(dead_letter.body).fields
    except UndecodableError:
        return {}
    try:
        return find_task(dead_letter.task or "").payload.from_wire(fields).shown()
    except (UnknownTaskError, InvalidPayloadError):
        return dict.fromkeys(fields, HIDDEN)


def _parsed(raw: bytes | str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UndecodableError("the message is not JSON") from error


def _body_of(envelope: Mapping[str, Any]) -> bytes | str:
    body, properties = envelope.get("body"), envelope.get("properties")
    if not isinstance(body, str) or not isinstance(properties, dict):
        raise UndecodableError("the envelope has no body and properties")
    try:
        return b64decode(body, validate=True) if properties.get("body_encoding") == "base64" else body
    except ValueError as error:
        raise UndecodableError("the envelope's body is not base64") from error


def _priority_of(envelope: Mapping[str, Any]) -> int | None:
    properties = envelope.get("properties")
    priority = properties.get("priority") if isinstance(properties, dict) else None
    return priority if isinstance(priority, int) and 0 <= priority <= 9 else None  # noqa: PLR2004 - the wire's range
