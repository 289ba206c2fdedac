"""Names that Python and the Lua scripts share: kinds of events and the fields of a put, written here once."""

from typing import Literal, NamedTuple, get_args

type EventKind = Literal[
    "queued",
    "scheduled",
    "started",
    "retrying",
    "snoozed",
    "succeeded",
    "failed",
    "stalled",
    "cancelled",
]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind.__value__)


class PutFields(NamedTuple):
    """One message for put.lua, in the order of its arguments."""

    queue: str
    tag: str
    nonce: str  # names the publication: the same one put twice is one message
    payload: str  # the envelope as JSON
    priority: int  # 0-9, 9 first
    group: str  # "" for none
    due_ms: int  # a moment since 1970; 0: none
    delay_ms: int  # from the put on, by the server's clock; 0: none
    lifo: int  # 1: before all of its priority
    dedup_key: str  # "" for none
    dedup_mode: str
    dedup_ms: int  # 0: none
    run_id: str  # "" for a message that is no task
    detail: str  # of the event, JSON
    expiry_ms: int  # of the keys of a temporary queue; 0: none
    attempt: int
    retries: int
    ends_ms: int  # expiry of the task, since 1970; 0: none
    lasts_ms: int  # the same from the put on, by the server's clock; 0: none


def lua_names() -> str:
    """Return the shared names as the Lua tables EVENT (kind -> kind) and PUT (field -> offset, and `count`)."""
    kinds = ", ".join(f"{kind} = '{kind}'" for kind in EVENT_KINDS)
    offsets = ", ".join(f"{name} = {offset}" for offset, name in enumerate(PutFields._fields))
    return f"local EVENT = {{ {kinds} }}\nlocal PUT = {{ {offsets}, count = {len(PutFields._fields)} }}\n"
