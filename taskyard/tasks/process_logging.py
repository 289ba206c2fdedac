"""The logging of workers and beat: the app's own where it has some, else ours; what handlers log is kept either way."""

import logging
from typing import Any

import structlog
from celery import signals
from celery.app.defaults import DEFAULTS
from celery.app.log import Logging
from celery.utils.nodenames import node_format

from taskyard.logging import configure_logging, has_console, log_events_as_text
from taskyard.settings.loading import current_settings
from taskyard.tasks.reporting import keep_log_lines

FORMATS = ("worker_log_format", "worker_task_log_format", "worker_log_datefmt", "worker_task_log_datefmt")
log = structlog.get_logger(__name__)


class PlatformLogging(Logging):
    """
    Celery's logging of a process, with our format as its default.

    A receiver of `setup_logging` configures all itself. Else handlers that the root logger has stay; ours is added when
    none of them prints to the terminal. With `worker_hijack_root_logger` ours replaces those that do.
    """

    def setup_logging_subsystem(
        self,
        loglevel: Any = None,
        logfile: Any = None,
        format: str | None = None,  # noqa: A002 - as above
        colorize: bool | None = None,  # noqa: FBT001 - as above
        hostname: str | None = None,
        **options: Any,
    ) -> Any:
        """
        Configure logging, once per process.

        Returns something true when standard output and error are not to be redirected into the log.
        """
        if self.already_setup:
            return None
        if signals.setup_logging.receivers:
            log_events_as_text()
            handled = super().setup_logging_subsystem(loglevel, logfile, format, colorize, hostname, **options)
            keep_log_lines()
            return handled
        Logging._setup = True  # type: ignore[attr-defined]  # noqa: SLF001 - Celery's mark, which its stubs do not know
        path = node_format(logfile, hostname) if logfile and hostname else logfile
        self._configure(loglevel, path, in_colour=colorize is not False)
        self._announce(loglevel, path)
        keep_log_lines()
        return path is None

    def _configure(self, level: int | None, path: str | None, *, in_colour: bool) -> None:
        conf = self.app.conf
        if path is None and not conf.worker_hijack_root_logger and has_console():
            log_events_as_text()
            logging.getLogger().setLevel(level or current_settings().log_level.upper())
        else:
            is_kept = not conf.worker_hijack_root_logger
            configure_logging(current_settings(), level=level, path=path, in_colour=in_colour, keeps_others=is_kept)
        if ignored := [name for name in FORMATS if conf[name] != DEFAULTS.get(name)]:
            log.warning("logging.ignored", settings=ignored, note="the format is LOG_FORMAT; connect setup_logging")

    def _announce(self, level: int | None, path: str | None) -> None:
        """Send the signals in which apps add handlers of their own, as Celery does."""
        facts = {"sender": None, "loglevel": level, "logfile": path, "format": self.format, "colorize": False}
        signals.after_setup_logger.send(logger=logging.getLogger(), **facts)
        signals.after_setup_task_logger.send(logger=logging.getLogger("celery.task"), **facts)
