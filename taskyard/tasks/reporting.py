"""
Log lines and progress of a running handler, kept with its attempt.

A thread sends both to the event stream, so that no handler waits for the broker; what cannot be sent is dropped.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from redis import RedisError

from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.server.client import shared_client
from taskyard.broker.worker.portable_errors import error_text
from taskyard.pools.coroutine_bridge import finish, is_on_loop
from taskyard.settings.loading import current_settings

MOST_LINES = 200  # of one execution; the last one says how many more there were
LONGEST_LINE = 2000  # characters
MOST_WAITING = 2000  # events
SEND_EVERY = 0.5  # seconds
PROGRESS_EVERY = 1.0  # seconds between two progress reports of one execution
WORDS_PER_EVENT = 7  # arguments of one event in note.lua
CLOSE_LIMIT = 0.2  # seconds that the end of an execution waits for its lines to be sent
STRUCTLOG_FIELDS = frozenset(("event", "level", "logger", "timestamp", "_record", "_from_structlog"))

type ReportEvent = tuple[str, str, str, int, str]  # kind, run id, queue, attempt, detail


class Reporter:
    """Collects log lines and progress of one execution; thread-safe."""

    def __init__(self, run_id: str, queue: str, attempt: int) -> None:
        """Make a reporter that has nothing to send."""
        self._about = (run_id, queue, attempt)
        self._lines: list[dict[str, Any]] = []
        self._count = 0
        self._sent_at = time.monotonic()
        self._progress: dict[str, Any] | None = None
        self._told_at = 0.0
        self._has_sent = False
        self._lock = threading.Lock()

    def log(self, level: str, logger: str, message: str) -> None:
        """Add a log line."""
        with self._lock:
            self._count += 1
            if self._count <= MOST_LINES:
                self._add(level, logger, message)
            if time.monotonic() - self._sent_at >= SEND_EVERY:
                self._send_lines()

    def progress(self, done: int, total: int | None, note: str) -> None:
        """Set the progress; only the newest is kept."""
        with self._lock:
            self._progress = {"done": done, "total": total, "note": note[:LONGEST_LINE]}
            if time.monotonic() - self._told_at >= PROGRESS_EVERY:
                self._send_progress()

    def close(self) -> None:
        """Send what is left."""
        with self._lock:
            if self._count > MOST_LINES:
                self._add("warning", __name__, f"{self._count - MOST_LINES} more lines were not kept")
            self._send_lines()
            self._send_progress()
        if self._has_sent and is_on_loop():
            finish(asyncio.to_thread(_sender().wait_sent, CLOSE_LIMIT))
        elif self._has_sent:
            _sender().wait_sent(CLOSE_LIMIT)

    def _add(self, level: str, logger: str, message: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._lines.append({"at": at, "level": level, "logger": logger, "message": message[:LONGEST_LINE]})

    def _send_lines(self) -> None:
        self._sent_at = time.monotonic()
        if self._lines:
            lines, self._lines = self._lines, []
            self._send("logged", lines=lines)

    def _send_progress(self) -> None:
        self._told_at = time.monotonic()
        if self._progress is not None:
            facts, self._progress = self._progress, None
            self._send("progress", **facts)

    def _send(self, kind: str, **facts: Any) -> None:
        self._has_sent = True
        _sender().put((kind, *self._about, detail(**facts)))


_current: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reporting(run_id: str | None, queue: str, attempt: int) -> Iterator[None]:
    """Collect log lines and progress of this execution while the block runs."""
    if not run_id or not current_settings().audit_enabled:
        yield
        return
    if _handler not in logging.getLogger().handlers:  # whoever configured logging after us has removed it
        keep_log_lines()
    reporter = Reporter(run_id, queue, attempt)
    token = _current.set(reporter)
    try:
        yield
    finally:
        _current.reset(token)
        reporter.close()


def progress(done: int, total: int | None = None, note: str = "") -> None:
    """
    Report the progress of the running handler, for `jobs show`; does nothing outside a handler.

    Cheap to call often: at most one report a second is sent, and always the last one.
    """
    reporter = _current.get()
    if reporter is not None:
        reporter.progress(done, total, note)


class AttemptLogs(logging.Handler):
    """Logging handler that stores what a task handler logs with its attempt."""

    def emit(self, record: logging.LogRecord) -> None:
        """Store one record."""
        reporter = _current.get()
        if reporter is not None:
            text = _text_of(record)
            if text.strip():  # Celery logs each piece that a redirected `print` writes
                reporter.log(record.levelname.lower(), record.name, text)


_handler = AttemptLogs()


def keep_log_lines() -> None:
    """Store what handlers log, whatever else is done with it; also of loggers that hand nothing on to the root."""
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in (logging.getLogger(), *(each for each in loggers if not each.propagate)):
        if _handler not in logger.handlers:
            logger.addHandler(_handler)


def _text_of(record: logging.LogRecord) -> str:
    given: Any = record.msg
    if isinstance(given, Mapping):  # structlog's
        fields = " ".join(f"{name}={value}" for name, value in given.items() if name not in STRUCTLOG_FIELDS)
        text = f"{given.get('event', '')} {fields}".strip()
    else:
        text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return f"{text} ({type(error).__name__}: {error_text(error)})" if error else text


class _Sender:
    """Sends events from its own thread; drops the oldest beyond its limit."""

    def __init__(self) -> None:
        self._waiting: deque[ReportEvent] = deque(maxlen=MOST_WAITING)
        self._wake, self._is_sent = threading.Event(), threading.Event()
        self._is_away = False
        threading.Thread(target=self._run, name="task reports", daemon=True).start()

    def put(self, event: ReportEvent) -> None:
        self._is_sent.clear()
        self._waiting.append(event)
        self._wake.set()

    def wait_sent(self, limit: float) -> None:
        if not self._is_away:
            self._is_sent.wait(limit)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self._send_all()
                self._is_away = False
            except (RedisError, OSError):  # the worker's own connection logs it
                self._is_away = True
                time.sleep(SEND_EVERY)  # our own thread; the broker is unreachable
                self._wake.set()

    def _send_all(self) -> None:
        settings = current_settings()
        space = Keyspace(settings.taskyard_key_prefix, writes_events=True)
        client = shared_client(settings.redis_url)
        while self._waiting:
            words = [word for event in list(self._waiting)[:100] for word in (*event, "", 0)]
            run_script(client, space, "note", *words)
            for _ in range(len(words) // WORDS_PER_EVENT):
                self._waiting.popleft()
        self._is_sent.set()


_senders: dict[int, _Sender] = {}
_making = threading.Lock()


def _forget_after_fork() -> None:
    """Start anew in a forked child: it has no such thread, and the lock may be held."""
    global _making  # noqa: PLW0603 - a lock that another thread held at the fork is never released
    _senders.clear()
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)


def _sender() -> _Sender:
    """Return this process's sender: a forked child has a thread of its own."""
    sender = _senders.get(os.getpid())
    if sender is None:
        with _making:
            sender = _senders.setdefault(os.getpid(), _Sender())
    return sender
