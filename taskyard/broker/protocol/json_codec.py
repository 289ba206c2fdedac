"""Fast JSON by pydantic; what it refuses goes to Python's own encoder and decoder."""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

_encoder = json.JSONEncoder(default=str, separators=(",", ":"))  # json.dumps would make one for each call


def dump(value: Any) -> str:
    """Return compact JSON text; lone surrogates are escaped, and values that JSON lacks become their text."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        return _encoder.encode(value)


def load(text: str | bytes) -> Any:
    """
    Read JSON text.

    Raises:
        ValueError, RecursionError: As `json.loads` does.
    """
    try:
        return from_json(text)
    except (TypeError, ValueError):  # a text with lone surrogates is no text to it
        return json.loads(text)
