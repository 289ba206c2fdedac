"""Our message header, and the names that producers and workers share."""

from typing import Any, Literal, TypedDict

HEADER = "taskyard"  # the message header that carries a MessageFacts
FLOW_HEADER = "taskyard_flow"  # the message header that names a flow and its step; see taskyard.flows.step_ref
BURY_TASK = "dead_letter.bury"
DEAD_LETTER_QUEUE = "dead-letter"


class Dedup(TypedDict):
    """At most one message with this key."""

    key: str
    mode: Literal["until_done", "throttle", "debounce"]
    ttl_ms: int | None  # length of a throttle, or of a debounce's quiet time; None for until_done


class MessageFacts(TypedDict, total=False):
    """The platform's facts about one message; a message of a foreign Celery client has none."""

    attempt: int  # number of the execution to come, from 1; absent: 1
    max_attempts: int  # executions in total
    waited_ms: int  # set by the broker at hand-out: since it was put, due, or taken back
    delay_ms: int  # from the put on, by the server's clock; it wins over Celery's `eta`
    expires_in_ms: int  # from the put on, by the server's clock; it wins over Celery's `expires`
    expired: bool | None  # set by the broker at hand-out; None: the message has no expiry
    group_key: str
    dedup: Dedup
    lifo: bool
    user_id: str
    args: dict[str, Any]  # the payload with hidden fields masked, for history and listings
    unrecorded: bool  # its sender writes no events (AUDIT_ENABLED=false)
    redrive_of: str  # id of the dead letter that this run was redriven from
