"""Validation of call options, so that a mistake fails at the caller and not in a worker."""

import unicodedata
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, cast

LONGEST_SECONDS = 3_155_760_000  # 100 years: added to today it stays a date
MOST_ATTEMPTS = 1_000_000
SPANS = (timedelta(milliseconds=1), timedelta(days=3650))  # of a throttle or debounce
LONGEST_TEXTS = {"task_id": 155, "user_id": 255, "group_key": 512, "dedup_key": 512}  # characters; the records' columns
LEAST_SECONDS = {"countdown": 0, "expires": 0.001, "time_limit": 0.001, "soft_time_limit": 0.001}
OURS = frozenset({"max_attempts", "lifo", "group_key", "dedup_key", "throttle", "debounce", "user_id"})
CELERYS = frozenset(
    (
        *("add_to_parent", "argsrepr", "chain", "chord", "compression", "connection", "countdown", "declare"),
        *("delivery_mode", "eta", "expires", "group_id", "group_index", "headers", "ignore_result", "kwargsrepr"),
        *("link", "link_error", "parent_id", "priority", "producer", "publisher", "queue", "replaced_task_nesting"),
        *("reply_to", "result_cls", "retries", "retry", "retry_policy", "root_id", "router", "serializer", "shadow"),
        *("soft_time_limit", "stamped_headers", "task_id", "task_type", "time_limit"),
        # passed on by kombu
        *("confirm_timeout", "content_encoding", "content_type", "correlation_id", "expiration", "immediate"),
        *("mandatory", "message_id", "origin", "route_name", "timeout", "timestamp"),
    )
)
PLACES = ("exchange", "exchange_type", "routing_key")  # routing on other brokers


def check_options(options: dict[str, Any]) -> None:
    """
    Check each option; an eta or expiry becomes a datetime with a time zone.

    Args:
        options: Changed. None means the same as leaving an option out.

    Raises:
        ValueError: An option is unknown, or its value has no meaning.
    """
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is None:
            if name not in CELERYS and name not in (options.get("stamped_headers") or ()):
                _refuse(name, value)
        elif value is not None:
            options[name] = check(name, value)
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError("soft_time_limit must be shorter than time_limit")


def check_queue(queue: Any, known: Collection[str]) -> None:
    """
    Refuse a queue that no worker consumes.

    Raises:
        ValueError: It is not declared.
    """
    name = getattr(queue, "name", queue)  # kombu's class is allowed as well
    if name is not None and name not in known:
        text = repr(name)[:80]
        raise ValueError(f"queue {text} is not declared, so no worker consumes it; known: {', '.join(known)}")


def _refuse(name: str, value: Any) -> None:
    if name in PLACES:
        if value is not None:
            raise ValueError(f"{name} has no meaning here; say queue")
        return
    near = get_close_matches(name, CELERYS | OURS, 1)
    raise ValueError(f"{name!r} is no option of a call" + (f"; is it {near[0]!r}?" if near else ""))


def _text(name: str, value: Any) -> str:
    longest = LONGEST_TEXTS[name]
    if isinstance(value, str) and 1 <= len(value) <= longest and (value.isprintable() or _can_be_kept(value)):
        return value
    raise ValueError(f"{name} is text of 1 to {longest} characters without control characters; leave it out for none")


def _can_be_kept(text: str) -> bool:
    return all(unicodedata.category(each) not in {"Cc", "Cs"} for each in text)  # spaces of all kinds can


def _seconds(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and LEAST_SECONDS[name] <= value <= LONGEST_SECONDS:  # NaN is in no range
        return cast("float", value)
    more = " or a datetime" if name == "expires" else ""
    least = "not negative" if name == "countdown" else "more than 0"
    raise ValueError(f"{name} {_short(value)}: use a number of seconds{more}, {least} and at most 100 years")


def _moment(name: str, value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{name} {_short(value)}: use a datetime") from error
    if not isinstance(moment, datetime):
        raise ValueError(f"{name} {_short(value)}: use a datetime")  # noqa: TRY004 - as for all options
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _expires(name: str, value: Any) -> float | datetime:
    return _moment(name, value) if isinstance(value, str | datetime) else _seconds(name, value)


def _span(name: str, value: Any) -> timedelta:
    if isinstance(value, timedelta) and SPANS[0] <= value <= SPANS[1]:
        return value
    raise ValueError(f"{name} {_short(value)}: use a timedelta that is longer than 0 and at most 10 years")


def _attempts(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ATTEMPTS:
        return value
    raise ValueError(
        f"{name} {_short(value)}: it counts executions in total: a whole number, at least 1 and up to {MOST_ATTEMPTS}"
    )


def _one_of(fits: Callable[[Any], bool], words: str) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if not fits(value):
            raise ValueError(f"{name} {_short(value)}: {words}")
        return value

    return check


def _short(value: Any) -> str:
    return repr(value)[:80]


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(LONGEST_TEXTS, _text),
    **dict.fromkeys(LEAST_SECONDS, _seconds),
    "expires": _expires,
    "eta": _moment,
    "throttle": _span,
    "debounce": _span,
    "max_attempts": _attempts,
    "headers": _one_of(lambda value: isinstance(value, Mapping), "use a mapping"),
    "lifo": _one_of(lambda value: isinstance(value, bool), "use True or False"),
    "serializer": _one_of(lambda value: value == "json", "workers read json only"),
}
