"""Command output: JSON for programs, names and values for people."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import click

GAP = "  "
MAX_CELL = 80  # characters
NOTHING = "-"
# Characters that JSON does not escape and a terminal may interpret: C1 controls, bidirectional overrides.
TERMINAL_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(value: Any) -> None:
    """Print one JSON document; times are ISO 8601 in UTC."""
    click.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON text without terminal control characters and lone surrogates (which cannot be encoded)."""
    text = json.dumps(value, default=as_json_value, indent=indent, ensure_ascii=False)
    return TERMINAL_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_result(text: str, *, as_json: bool, **facts: Any) -> None:
    """Print the result of a command: one line of text, or its facts as JSON."""
    if as_json:
        print_json(facts)
    else:
        click.echo(printable(text, limit=None))


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print one name and value per line."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name.ljust(width)}{GAP}{printable(value, limit=None)}")


def print_block(title: str, text: str) -> None:
    """Print an indented block of text with a title."""
    click.echo(f"\n{title}")
    for line in text.splitlines():
        click.echo(f"    {printable(line, limit=None)}")


def printable(value: Any, *, limit: int | None = MAX_CELL) -> str:
    """
    Return one line of text without control characters, which a task could use to command the terminal.

    >>> printable("a" + chr(27) + "[2Jb"), printable(None), printable({"a": 1})
    ('a?[2Jb', '-', '{"a": 1}')
    """
    match value:
        case None | "":
            return NOTHING
        case datetime():
            text = value.strftime("%Y-%m-%d %H:%M:%S")
        case dict() | list():
            text = json.dumps(value, default=as_json_value, ensure_ascii=False)
        case _:
            text = str(value)
    line = "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)
    return line if limit is None or len(line) <= limit else f"{line[: limit - 3]}..."


def milliseconds(value: int | None) -> str:
    """
    Format a duration.

    >>> milliseconds(87), milliseconds(1234), milliseconds(200_000), milliseconds(None)
    ('87 ms', '1.2 s', '3 min 20 s', '-')
    """
    if value is None:
        return NOTHING
    if value < 1000:  # noqa: PLR2004 - a second
        return f"{value} ms"
    if value < 60_000:  # noqa: PLR2004 - a minute
        return f"{value / 1000:.1f} s"
    minutes, rest = divmod(value // 1000, 60)
    return f"{minutes} min {rest} s"


def as_json_value(value: Any) -> Any:
    """Convert for `json.dumps`: times to ISO 8601, ids to text."""
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")
