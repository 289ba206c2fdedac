"""Sanitize and truncate foreign text and JSON before they are stored."""

import math
from typing import Any

from taskyard.broker.protocol.json_codec import dump

ERROR_BYTES = 4096  # of an error's message
RESULT_BYTES = 4096
TRACEBACK_BYTES = 16_384
PROGRESS_BYTES = 2048
LOG_BYTES = 262_144  # of the lines of one event as JSON
ARGS_BYTES = 16_384  # of the masked arguments as JSON
CUT = "\n... cut ...\n"


def clean(text: str) -> str:
    """
    Replace NUL and lone surrogates, which PostgreSQL's `text` cannot hold.

    >>> clean("a" + chr(0) + "b") == "a" + chr(0xFFFD) + "b"
    True
    """
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def clip(text: str, limit: int) -> str:
    """
    Return cleaned text of at most `limit` bytes of UTF-8.

    >>> clip("héllo", 3)
    'hé'
    """
    if len(text) <= limit and text.isascii() and "\0" not in text:  # the common case: ids, names
        return text
    raw = clean(text).encode()
    return raw.decode() if len(raw) <= limit else raw[:limit].decode(errors="ignore")


def clip_middle(text: str, limit: int) -> str:
    """Truncate a traceback to `limit` bytes, keeping its first quarter and its end."""
    raw = clean(text).encode()
    if len(raw) <= limit:
        return raw.decode()
    head = limit // 4
    tail = limit - head - len(CUT)
    return raw[:head].decode(errors="ignore") + CUT + raw[-tail:].decode(errors="ignore")


def clean_json(value: Any, limit: int) -> Any:
    """Return a JSON value that both databases accept; above `limit` bytes it becomes truncated JSON text."""
    cleaned = _clean_value(value)
    text = dump(cleaned)
    return cleaned if len(text.encode()) <= limit else clip(text, limit)


def _clean_value(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(str(key)): _clean_value(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean_value(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value
