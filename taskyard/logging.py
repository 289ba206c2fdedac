"""Logs: one line per event, as JSON or for a terminal."""

import logging
import os
import sys
from typing import Any

import structlog

from taskyard.settings.platform import Settings


def configure_logging(settings: Settings) -> None:
    """Send the records of the standard library and of structlog to stderr in one format; safe to call twice."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if writes_json(settings)
        else [structlog.processors.format_exc_info, _without_codes, _console()]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def harmless(text: str) -> str:
    """
    Replace what a terminal would obey; a log says what tasks, payloads and other hosts said.

    >>> harmless("a" + chr(27) + "[2J")
    'a?[2J'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in text)


def writes_json(settings: Settings) -> bool:
    """Tell whether the log of this process is JSON."""
    return settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())


def wants_colour() -> bool:
    """
    Tell whether standard error shows colours, and nobody said that they are unwanted.

    Source: no-color.org.
    """
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def _console() -> structlog.dev.ConsoleRenderer:
    """Lines for people; tracebacks are plain, for structlog's own show the values of local variables."""
    return structlog.dev.ConsoleRenderer(colors=wants_colour(), exception_formatter=structlog.dev.plain_traceback)


def _without_codes(_logger: Any, _method: str, event: Any) -> Any:
    """Clean the texts of an event, its traceback included; of all else the renderer shows the `repr`."""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event.items()}
