"""Logs: one line per event, as JSON or for a terminal."""

import logging
import os
import sys
from logging.handlers import WatchedFileHandler
from typing import Any

import structlog

from taskyard.settings.platform import Settings

OURS = "taskyard"  # name of our handler of the root logger
_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logging(
    settings: Settings,
    *,
    level: int | None = None,
    path: str | None = None,
    in_colour: bool = True,
    keeps_others: bool = False,
) -> None:
    """
    Send the records of the standard library and of structlog to one place in one format; safe to call twice.

    Handlers of others stay, those that print to standard output or error only with `keeps_others`.

    Args:
        settings: The format, and the level where none is given.
        level: The lowest that is logged.
        path: A file to append to, which may be moved away and is then opened anew; None: standard error.
        in_colour: False: no colours, even on a terminal.
        keeps_others: What others print stays, so that it may be there twice.
    """
    handler = logging.StreamHandler() if path is None else WatchedFileHandler(path, encoding="utf-8")
    handler.set_name(OURS)
    as_json = writes_json(settings) if path is None else settings.log_format != "console"
    colours = in_colour and path is None and wants_colour()
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.processors.format_exc_info, _without_codes, _console(colours=colours)]
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    replaced = [each for each in root.handlers if each.name == OURS or (_prints(each) and not keeps_others)]
    root.handlers[:] = [*(each for each in root.handlers if each not in replaced), handler]
    root.setLevel(settings.log_level.upper() if level is None else level)
    _configure_structlog(structlog.stdlib.ProcessorFormatter.wrap_for_formatter)


def has_console() -> bool:
    """Tell whether a handler of somebody else prints what is logged."""
    return any(_prints(each) and each.name != OURS for each in logging.getLogger().handlers)


def log_events_as_text() -> None:
    """Log our events as plain text, for handlers that the app has configured; an app's own structlog stays as it is."""
    if not structlog.is_configured():
        _configure_structlog(_as_text)


def _configure_structlog(last: Any) -> None:
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_SHARED, last],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _as_text(_logger: Any, _method: str, event: Any) -> Any:
    """Render an event for a formatter of the standard library, which adds level, logger and time itself."""
    known = {"event", "level", "logger", "timestamp", "exc_info"}
    fields = "".join(f" {name}={value}" for name, value in event.items() if name not in known)
    return (f"{event['event']}{fields}".replace("%", "%%"),), {"exc_info": event.get("exc_info")}


def _prints(handler: logging.Handler) -> bool:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and handler.stream in streams


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


def _console(*, colours: bool) -> structlog.dev.ConsoleRenderer:
    """Lines for people; tracebacks are plain, for structlog's own show the values of local variables."""
    return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)


def _without_codes(_logger: Any, _method: str, event: Any) -> Any:
    """Clean the texts of an event, its traceback included; of all else the renderer shows the `repr`."""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event.items()}
