"""Translate kombu's envelope and our header into the arguments of `put`, and the answer of `take` back."""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, NamedTuple

from kombu.utils.json import dumps, loads

from taskyard.broker.protocol.field_checks import LARGEST_COUNT, MalformedMessageError, check_headers
from taskyard.broker.protocol.header import BURY_TASK, HEADER
from taskyard.broker.protocol.json_codec import dump, load
from taskyard.broker.protocol.moments import due_ms, duration_ms, moment_ms
from taskyard.broker.protocol.outcomes import BrokerLease, detail
from taskyard.broker.scripts.shared_names import PutFields

NORMAL_PRIORITY = 5  # of a message that names none; 0-9, 9 first
ADDRESS = ("exchange", "routing_key")  # what we keep of a message's delivery_info
PROBLEM = "taskyard-problem"  # property in which the reader of an envelope reports a malformed task


class MalformedEnvelopeError(ValueError):
    """The bytes are not an envelope."""


class TakenMessage(NamedTuple):
    """One message as `take` handed it out."""

    queue: str
    tag: str  # its key
    lease: int  # number of this hand-out; 0 when it needs no acknowledgement
    payload: bytes
    attempt: int  # 1-based number of this execution
    retries: int  # what Celery counts in its header
    stalls: int
    cancelled_by: str  # JSON; "" for a run that is not cancelled
    run_id: str
    dead: tuple[bytes, ...]  # for a dead letter: the message it reports
    waited_ms: int  # since it was put, due, or taken back
    was_requeued: bool  # a consumer rejected it to have it again
    losses: int  # workers that were lost with it, whether or not they counted as stalls
    ends_ms: int  # expiry, since 1970; 0: none; negative: it has expired, by the server's clock

    delivery_tag: str  # unique for each hand-out, so that a late answer to an earlier one is recognized

    @property
    def is_expired(self) -> bool | None:
        """Whether it must not start any more; None: it has no expiry."""
        return self.ends_ms < 0 if self.ends_ms else None

    def to_lease(self) -> BrokerLease | None:
        """Return the lease; None when the message needs no acknowledgement."""
        if not self.lease:
            return None
        return BrokerLease(self.queue, self.tag, self.lease, self.run_id, self.attempt, self.delivery_tag)


def put_fields(
    queue: str, message: dict[str, Any], expiry_ms: int = 0, encode: Callable[[Any], str] = dumps
) -> PutFields:
    """Return the arguments of put.lua for one message; `expiry_ms` is that of a temporary queue, 0 for none."""
    headers: dict[str, Any] = message.get("headers") or {}
    properties: dict[str, Any] = message["properties"]
    options = _facts_of(headers)
    run_id = str(headers.get("id") or "") if "task" in headers else ""
    nonce = str(properties["delivery_tag"])
    dedup = _mapping(options.get("dedup"))
    return PutFields(
        queue=queue,
        tag=run_id or nonce,
        nonce=nonce,
        payload=encode(message),
        priority=priority_of(properties.get("priority")),
        group=_text(options.get("group_key")),
        due_ms=0 if duration_ms(options.get("delay_ms")) else due_ms(headers.get("eta")),
        delay_ms=duration_ms(options.get("delay_ms")),
        lifo=int(options.get("lifo") is True),
        dedup_key=_text(dedup.get("key")),
        dedup_mode=_text(dedup.get("mode")) or "until_done",
        dedup_ms=_count(dedup.get("ttl_ms")),
        run_id=run_id,
        detail=queued_detail(headers, properties) if run_id else "",
        expiry_ms=expiry_ms,
        attempt=max(1, _count(options.get("attempt"))),
        retries=_count(headers.get("retries")),
        ends_ms=moment_ms(headers.get("expires")),
        lasts_ms=duration_ms(options.get("expires_in_ms")),
    )


def _facts_of(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Our header; what is wrong in it is for the worker to say, who has the bytes for the dead letter."""
    return _mapping(headers.get(HEADER))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value <= LARGEST_COUNT else 0


def priority_of(value: Any) -> int:
    """A priority between 0 and 9; anything that is no number counts as none."""
    try:
        return max(0, min(9, int(value)))
    except (TypeError, ValueError):
        return NORMAL_PRIORITY


def give_normal_priority(properties: dict[str, Any], **_: Any) -> None:
    """Give a task that names no priority the normal one: kombu would make it 0, the last (`before_task_publish`)."""
    if properties.get("priority") is None:
        properties["priority"] = NORMAL_PRIORITY


def queued_detail(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """The detail of a `queued` or `scheduled` event: from our header, else from Celery's."""
    options = _facts_of(headers)
    return detail(
        task=headers.get("task"),
        args=options.get("args") or headers.get("kwargsrepr"),
        user_id=options.get("user_id"),
        priority=priority_of(properties.get("priority")),
        parent_id=headers.get("parent_id"),
        root_id=headers.get("root_id"),
        correlation_id=properties.get("correlation_id"),
        eta=headers.get("eta"),
        group_key=options.get("group_key"),
        redrive_of=options.get("redrive_of"),
    )


def read_taken(answer: list[Any]) -> TakenMessage:
    """One message of the answer of take.lua."""
    queue, tag, lease, payload, attempt, retries, stalls, cancelled, run_id, dead, waited, requeued, losses, ends = (
        answer
    )
    name = tag.decode()
    return TakenMessage(
        queue.decode(),
        name,
        lease,
        payload,
        int(attempt),
        int(retries),
        int(stalls),
        cancelled.decode(),
        run_id.decode(),
        tuple(dead),
        waited,
        requeued == b"1",
        losses,
        int(ends or 0),
        f"{name}:{lease}",
    )


def envelope_of(taken: TakenMessage) -> dict[str, Any]:
    """
    Return the envelope to deliver: the stored one with the facts of this execution, and without its past ETA.

    Raises:
        ValueError: The stored bytes are no envelope: not JSON, or not an object with `properties` and `headers`.
    """
    if taken.dead:
        return _dead_letter_envelope(taken)
    message = _decode(taken.payload)
    properties, headers = message["properties"], message["headers"]
    if taken.losses or taken.was_requeued:
        headers["redelivered"] = True  # where kombu's transport says it; its other place is delivery_info
    properties["delivery_tag"] = taken.delivery_tag
    properties["delivery_info"] = _delivery_info(properties, taken)
    properties[PROBLEM] = None
    if "task" in headers:
        properties[PROBLEM] = _problem_of(headers, properties)
        headers[HEADER] = _facts_of_execution(headers.get(HEADER), taken)
        headers["retries"], headers["eta"] = taken.retries, None
        if taken.ends_ms:  # the server's moment, which a retry by Celery carries on
            headers["expires"] = datetime.fromtimestamp(abs(taken.ends_ms) / 1000, UTC).isoformat()
    properties["priority"] = priority_of(properties.get("priority"))
    return message


def _delivery_info(properties: Mapping[str, Any], taken: TakenMessage) -> dict[str, Any]:
    stored = properties["delivery_info"]
    info = {name: stored[name] for name in ADDRESS if isinstance(stored.get(name), str)}
    if taken.losses or taken.was_requeued:
        info["redelivered"] = True
    return info


def _problem_of(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """What is wrong with a task's headers, for a worker to bury it; other consumers may know better."""
    try:
        check_headers(headers, properties)
    except MalformedMessageError as error:
        return str(error)
    return None


def _facts_of_execution(stored: Any, taken: TakenMessage) -> dict[str, Any]:
    """Our header with the broker's own facts, which take the place of what a message says of itself."""
    facts: dict[str, Any] = stored if isinstance(stored, dict) else {}
    facts.pop("delay_ms", None)  # it is over
    facts.pop("expires_in_ms", None)  # a moment now
    facts["expired"] = taken.is_expired
    facts["attempt"], facts["stalls"], facts["waited_ms"] = taken.attempt, taken.stalls, taken.waited_ms
    facts["losses"] = taken.losses
    facts["cancelled"] = taken.cancelled_by or None
    return facts


def _decode(payload: bytes) -> dict[str, Any]:
    # kombu's decoder calls a hook for every object; it is needed only where its encoder left a mark.
    text = payload.decode()
    message = loads(text) if "__type__" in text else load(text)
    if not isinstance(message, dict):
        raise MalformedEnvelopeError(f"an envelope is an object, not a {type(message).__name__}")
    headers, properties = message.get("headers"), message.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise MalformedEnvelopeError("an envelope has 'headers' and 'properties'")
    if not isinstance(properties.get("delivery_info"), dict):
        raise MalformedEnvelopeError("the envelope's properties have no 'delivery_info'")
    for part in ("content-type", "content-encoding"):
        if not isinstance(message.get(part), str | None):
            raise MalformedEnvelopeError(f"the envelope's {part!r} is not a text")
    return message


def _dead_letter_envelope(taken: TakenMessage) -> dict[str, Any]:
    body = dump([[], dead_letter_of(taken.dead), {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    run_id = taken.run_id
    return {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": BURY_TASK, "id": run_id, "root_id": run_id, "parent_id": None, "group": None,
            "eta": None, "expires": None, "retries": taken.retries, "timelimit": [None, None], "argsrepr": "()",
            "kwargsrepr": "{}", "origin": "broker", "ignore_result": True,
            HEADER: {"attempt": taken.attempt, "max_attempts": None, "waited_ms": taken.waited_ms},
        },
        "properties": {
            "correlation_id": run_id, "reply_to": "", "delivery_mode": 2, "priority": NORMAL_PRIORITY,
            "delivery_info": {"exchange": "", "routing_key": taken.queue}, "body_encoding": "utf-8",
            "delivery_tag": taken.delivery_tag,
        },
    }  # fmt: skip


def dead_letter_of(dead: tuple[bytes, ...]) -> dict[str, Any]:
    """The keyword arguments of `dead_letter.bury` for a message that the broker buried."""
    tag, payload, queue, _run_id, attempt, stalls, reason, facts, died_ms = dead
    known = load(facts or b"{}")
    headers = _headers_of(payload)
    return {
        "run_id": tag.decode(errors="replace"),  # the run's id, or what tells a copy in another queue apart
        "attempt": int(attempt),
        "task": _text((headers or {}).get("task")) or None,
        "queue": queue.decode(),
        "reason": reason.decode(),
        "error": known.get("error") or "",
        "message": known.get("message") or "",
        "traceback": known.get("traceback"),
        "stalls": int(stalls),
        "body": base64.b64encode(payload).decode(),
        "headers": headers,
        "failed_at": datetime.fromtimestamp(int(died_ms) / 1000, UTC).isoformat(),
    }


def _headers_of(payload: bytes) -> dict[str, Any] | None:
    try:
        return dict(_decode(payload)["headers"])
    except (ValueError, RecursionError):
        return None


def new_nonce() -> str:
    """Return a name for one publication, shared by all its repeated puts."""
    return token_hex(16)
