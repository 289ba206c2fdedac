"""Task messages with one wrong field each, as bytes: what a hand-made message of any origin may look like."""

import json
from collections.abc import Iterator
from itertools import count, cycle
from typing import Any

from hypothesis import strategies as st

from taskyard.broker.scripts.runner import run_script
from taskyard.broker.scripts.shared_names import PutFields
from tests.broker.harness import BrokerHarness

NOT_TEXT: tuple[Any, ...] = (7, [], {}, [1], {"a": 1}, True, 1.5)
NOT_COUNT: tuple[Any, ...] = ("x", -1, 2**40, [], {}, 1.5, "7")
NOT_OBJECT: tuple[Any, ...] = (7, "x", [1], [[1, 2]])
NOT_LIST: tuple[Any, ...] = (7, "x", {"a": 1}, True)
NOT_MOMENT: tuple[Any, ...] = (7, "soon", [], {"a": 1}, "2026-99-01T00:00:00", "")
NOT_LIMITS: tuple[Any, ...] = (
    5,
    "x",
    ["a", None],
    [None, "a"],
    [1],
    [1, 2, 3],
    {"a": 1},
    [float("nan"), None],
    [-1, None],
    [[], {}],
)
NOT_SIGNATURES: tuple[Any, ...] = (
    7,
    "x",
    [7],
    [[]],
    [{}],
    [{"task": 7}],
    [{"task": "t", "kwargs": 7}],
    [{"task": "t", "args": "x"}],
)
NOT_OURS: tuple[Any, ...] = (
    5,
    "x",
    [1],
    {"dedup": 5},
    {"max_attempts": "x"},
    {"group_key": []},
    {"args": []},
    {"lifo": "x"},
)
HEADERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("root_id", "parent_id", "group", "shadow", "lang", "argsrepr", "kwargsrepr", "origin"), NOT_TEXT),
    **dict.fromkeys(("task", "id"), (*NOT_TEXT, "", None)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), NOT_COUNT),
    **dict.fromkeys(("stamps", "headers"), NOT_OBJECT),
    "expires": NOT_MOMENT,
    "timelimit": NOT_LIMITS,
    "ignore_result": ("x", 7, [], {}),
    "stamped_headers": (7, "x", {"a": 1}, [7]),
    "taskyard": NOT_OURS,
    "get": (5,),
    "update": ("x",),
    "_children": (7,),
}
EMBED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("callbacks", "errbacks", "chain"), NOT_SIGNATURES),
    "chord": (7, "x", [], {}, {"task": 7}),
    "delivery_info": (5,),
    "timelimit": (5, ["a", None]),
}
BODY: tuple[Any, ...] = (7, "x", None, [], [[]], [[], {}], [7, {}, {}], ["x", {}, {}], [[], 7, {}], [[], [], {}])
PROPERTIES: dict[str, tuple[Any, ...]] = {"reply_to": NOT_TEXT, "correlation_id": NOT_TEXT}
ENVELOPE: dict[str, tuple[Any, ...]] = {
    "headers": (7, "x", [], None),
    "properties": (7, "x", [], None, {}),
    "content-type": (7, [], "application/x-python-serialize", "nonsense"),
    "content-encoding": (7, []),
}
OLD_BODY: dict[str, tuple[Any, ...]] = {
    "args": (*NOT_LIST, None),
    "kwargs": (*NOT_OBJECT, None),
    "id": (7, [], {}, ""),
    "task": (7, [], {}, ""),
    "retries": NOT_COUNT,
    "expires": NOT_MOMENT,
    "eta": NOT_MOMENT,
    "timelimit": NOT_LIMITS,
    "callbacks": NOT_SIGNATURES,
    "chord": (7, "x", {"task": 7}),
}
CASES: list[tuple[str, str, Any]] = [
    *((part, name, value) for part, table in (("headers", HEADERS), ("embed", EMBED), ("properties", PROPERTIES),
      ("envelope", ENVELOPE), ("old", OLD_BODY)) for name, values in table.items() for value in values),
    *(("body", "", value) for value in BODY),
]  # fmt: skip
hostile_cases = st.sampled_from(CASES)


def envelope(run_id: str, case: tuple[str, str, Any]) -> bytes:
    """The stored bytes of a message whose one field is wrong."""
    part, name, value = case
    headers: dict[str, Any] = {"task": "record", "id": run_id, "lang": "py", "retries": 0, "root_id": run_id}
    embed: dict[str, Any] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    properties: dict[str, Any] = {"delivery_info": {"exchange": "", "routing_key": "celery"}, "body_encoding": "utf-8"}
    properties["delivery_tag"] = run_id
    body: Any = [[], {}, embed]
    if part == "old":
        body, headers = {"task": "record", "id": run_id, "args": [], "kwargs": {}, name: value}, {}
    elif part == "body":
        body = value
    elif part != "envelope":
        {"headers": headers, "embed": embed, "properties": properties}[part][name] = value
    whole: dict[str, Any] = {"body": json.dumps(body), "headers": headers, "properties": properties}
    whole |= {"content-type": "application/json", "content-encoding": "utf-8"}
    if part == "envelope":
        whole[name] = value
    return json.dumps(whole).encode()


def put_raw(harness: BrokerHarness, messages: dict[str, bytes]) -> None:
    """Put these bytes on the queue `celery`, as a producer that checks nothing would."""
    arguments: list[Any] = []
    for run_id, payload in messages.items():
        put = PutFields("celery", run_id, run_id, "", 5, "", 0, 0, 0, "", "until_done", 0, run_id, "{}", 0, 1, 0, 0, 0)
        arguments += put._replace(payload=payload)  # type: ignore[arg-type]  # bytes, as they are
    run_script(harness.raw, harness.space, "put", *arguments)


def numbered(cases: list[tuple[str, str, Any]], size: int, prefix: str) -> Iterator[tuple[str, tuple[str, str, Any]]]:
    """Yield `size` cases in turn, each with an id of its own."""
    for number, case in zip(count(), cycle(cases), strict=False):
        if number >= size:
            return
        yield f"{prefix}-{number}", case
