"""Check every field of a task message that Celery, kombu, billiard or we read later: it may come from anywhere."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from celery.app.task import Context
from celery.utils.time import maybe_iso8601

from taskyard.broker.protocol.header import HEADER

LONGEST_NAME = 1024  # characters
LONGEST_LIMIT = 10 * 366 * 86_400  # seconds
LARGEST_COUNT = 2**31 - 1
LONGEST_MS = 10**13  # 300 years
BODY_PARTS = 3  # args, kwargs, embed

type Predicate = Callable[[Any], bool]


class MalformedMessageError(ValueError):
    """A field of the message is wrong; the text names it."""


def check_headers(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    """
    Check the headers of a task message of protocol 2, and the properties that Celery reads.

    Raises:
        MalformedMessageError: One is wrong.
    """
    _check_required(headers)
    _check(headers, _REQUEST)
    _check(properties, _PROPERTIES)


def check_body(payload: Any) -> None:
    """
    Check the decoded body of a task message of protocol 2.

    Raises:
        MalformedMessageError: It is not a list of arguments, keyword arguments and embedded signatures.
    """
    if not isinstance(payload, list | tuple) or len(payload) != BODY_PARTS:
        raise MalformedMessageError("body: not a list of args, kwargs and embed")
    args, kwargs, embed = payload
    if not _is_list(args):
        raise MalformedMessageError(f"args: not a list but {type(args).__name__}")
    if not _is_object(kwargs):
        raise MalformedMessageError(f"kwargs: not an object but {type(kwargs).__name__}")
    if embed is not None and embed != _EMPTY_EMBED:
        if not isinstance(embed, dict):
            raise MalformedMessageError(f"embed: not an object but {type(embed).__name__}")
        if embed.keys() - _EMBED.keys():
            raise MalformedMessageError("embed: unknown fields")
        _check(embed, _EMBED)


def check_old_body(body: Mapping[str, Any]) -> None:
    """
    Check the decoded body of a task message of protocol 1: arguments and fields in one object.

    Raises:
        MalformedMessageError: A field is wrong.
    """
    _check_required(body)
    _check(body, _OLD_BODY)
    for name in ("args", "kwargs"):
        if body.get(name, ()) is None:
            raise MalformedMessageError(f"{name}: null")


def _check(fields: Mapping[str, Any], checks: Mapping[str, Predicate]) -> None:
    name = _first_wrong(fields, checks)
    if name is not None:
        raise MalformedMessageError(f"{name}: {type(fields[name]).__name__} is no value of it, or out of its range")


def _first_wrong(fields: Mapping[str, Any], checks: Mapping[str, Predicate]) -> str | None:
    """Return the name of the first field that is wrong; every message passes here, most fields are plain texts."""
    for name, value in fields.items():
        if value is None:
            continue
        is_right = checks.get(name)
        if is_right is None or (is_right is _is_text and type(value) is str and value.isascii()):
            continue
        if not is_right(value):
            return name
    return None


def _check_required(fields: Mapping[str, Any]) -> None:
    for name in ("task", "id"):
        value = fields.get(name)
        is_plain = type(value) is str and value.isascii() and 0 < len(value) <= LONGEST_NAME
        if not is_plain and not _is_name(value):
            raise MalformedMessageError(f"{name}: not a text of 1 to {LONGEST_NAME} characters")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and (value.isascii() or _is_encodable(value))


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates, which no server takes
        return False
    return True


def _is_name(value: Any) -> bool:
    return _is_text(value) and 0 < len(value) <= LONGEST_NAME


def _is_duration(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= LONGEST_MS)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= LARGEST_COUNT


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and (not value or _ONLY_TEXT.issuperset(map(type, value)))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_text_list(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _is_limit(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= LONGEST_LIMIT)


def _is_limits(value: Any) -> bool:
    return value == _NO_LIMITS or (_is_list(value) and len(value) == len(_NO_LIMITS) and all(map(_is_limit, value)))


def _is_moment(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(maybe_iso8601(value))
    except (ValueError, OverflowError):
        return False


def _is_signature(value: Any) -> bool:
    return _is_object(value) and _is_name(value.get("task")) and _first_wrong(value, _SIGNATURE) is None


def _is_signature_list(value: Any) -> bool:
    return _is_list(value) and all(map(_is_signature, value))


def _is_dedup(value: Any) -> bool:
    return _is_object(value) and _is_name(value.get("key")) and _first_wrong(value, _DEDUP) is None


def _is_ours(value: Any) -> bool:
    return _is_object(value) and _first_wrong(value, _OURS) is None


def _is_wrong(_: Any) -> bool:
    return False


# A field of one of these names would take the place of a method of `self.request`.
_SHADOWING = {name: _is_wrong for name, value in vars(Context).items() if callable(value)} | {
    "_children": _is_wrong,
    "_protected": _is_wrong,
}
_ONLY_TEXT = frozenset({str})
_NO_LIMITS = [None, None]  # hard and soft
_DEDUP: Mapping[str, Predicate] = {"mode": _is_text, "ttl_ms": _is_count}
_OURS: Mapping[str, Predicate] = {
    "attempt": _is_count,
    "max_attempts": lambda value: _is_count(value) and value > 0,
    "group_key": _is_text,
    "dedup": _is_dedup,
    "lifo": _is_flag,
    "user_id": _is_text,
    "args": _is_object,
    "redrive_of": _is_text,
    "delay_ms": _is_duration,
    "expires_in_ms": _is_duration,
}
_SIGNATURE: Mapping[str, Predicate] = {
    "args": _is_list,
    "kwargs": _is_object,
    "options": _is_object,
    "subtask_type": _is_text,
}
_EMBED: Mapping[str, Predicate] = {
    "callbacks": _is_signature_list,
    "errbacks": _is_signature_list,
    "chain": _is_signature_list,
    "chord": _is_signature,
}
_EMPTY_EMBED = dict.fromkeys(_EMBED)  # of most tasks
_TEXTS = ("root_id", "parent_id", "group", "taskset", "shadow", "meth", "lang", "argsrepr", "kwargsrepr", "origin")
_REQUEST: Mapping[str, Predicate] = {
    **_SHADOWING,
    **_EMBED,
    **dict.fromkeys((*_TEXTS, "compression"), _is_text),
    **dict.fromkeys(("group_index", "retries", "replaced_task_nesting"), _is_count),
    **dict.fromkeys(("stamps", "headers"), _is_object),
    **dict.fromkeys(("time_limit", "soft_time_limit"), _is_limit),
    "timelimit": _is_limits,
    "expires": _is_moment,
    "ignore_result": _is_flag,
    "stamped_headers": _is_text_list,
    HEADER: _is_ours,
}
_OLD_BODY = {**_REQUEST, "args": _is_list, "kwargs": _is_object, "eta": _is_moment, "utc": _is_flag}
_PROPERTIES = dict.fromkeys(("reply_to", "correlation_id"), _is_text)
