"""
Readiness: broker, database, migrations, a consumer for each queue, the keys of webhooks, the audit backlog.

Checks run in the background, each in a thread of its own: a report never waits for a server.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine, text

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.history.writer.event_writer import backlog
from taskyard.migrations import schema
from taskyard.settings.platform import Settings
from taskyard.tasks.known_queues import known_queues
from taskyard.webhooks.signing_keys_check import missing_keys

CHECK_EVERY = 1.0  # seconds between two runs of a check
KEYS_EVERY = 2.0  # seconds; only an endpoint that was added makes a difference
MIGRATIONS_EVERY = 10.0  # seconds; this check reads the revision files
GRACE = 4.0  # seconds that a check may take before it counts as hanging


@dataclass(frozen=True, slots=True)
class ReadinessCheck:
    """One condition of readiness."""

    name: str
    is_ok: bool
    note: str  # one line, without addresses


class Readiness:
    """Runs the checks again and again, and reports their last results."""

    def __init__(self, client: Redis, engine: Engine, settings: Settings) -> None:
        """Start the checks."""
        self._checks = (
            _BackgroundCheck("broker", lambda: _ping(client)),
            _BackgroundCheck("database", lambda: _select(engine)),
            _BackgroundCheck("migrations", lambda: _pending_migrations(engine), MIGRATIONS_EVERY),
            _BackgroundCheck("consumers", lambda: _consumers(client, settings)),
            _BackgroundCheck("webhooks", lambda: missing_keys(engine, settings), KEYS_EVERY),
            _BackgroundCheck("audit", lambda: _backlog(client, settings)),
        )

    def report(self) -> list[ReadinessCheck]:
        """Return the last result of each check, at once."""
        return [check.result() for check in self._checks]

    def stop(self) -> None:
        """Stop the checks soon."""
        for check in self._checks:
            check.stop()


class _BackgroundCheck:
    """One check in a thread of its own; one that does not return in time has failed."""

    def __init__(self, name: str, check: Callable[[], str], every: float = CHECK_EVERY) -> None:
        """`check` returns what is wrong, empty if nothing is."""
        self._name, self._check, self._every = name, check, every
        self._fault = "not checked yet"
        self._checked_at = time.monotonic()
        self._stop = threading.Event()
        threading.Thread(target=self._run, name=f"readiness: {name}", daemon=True).start()

    def result(self) -> ReadinessCheck:
        """Return the last result."""
        age = time.monotonic() - self._checked_at
        fault = f"no answer for {age:.0f} s" if age > self._every + GRACE else self._fault
        return ReadinessCheck(self._name, not fault, fault or "ok")

    def stop(self) -> None:
        """Stop soon."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._fault = self._check()
            except Exception as error:  # noqa: BLE001 - each server has its own errors; all mean: not ready
                self._fault = type(error).__name__
            self._checked_at = time.monotonic()
            self._stop.wait(self._every)


def _ping(client: Redis) -> str:
    return "" if client.ping() else "no answer"


def _select(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return ""


def _pending_migrations(engine: Engine) -> str:
    behind = [seen.owner for seen in schema.standings(engine) if not seen.is_current]
    return f"pending migrations of {', '.join(behind)}; run: celery -A tasks db upgrade" if behind else ""


def _consumers(client: Redis, settings: Settings) -> str:
    if settings.taskyard_transport == "redis":  # stock kombu does not track consumers
        return ""
    control = QueueControl(client, settings.taskyard_key_prefix)
    unserved = [queue for queue in known_queues() if not control.counts(queue).consumers]
    return f"no consumer: {', '.join(unserved)}" if unserved else ""


def _backlog(client: Redis, settings: Settings) -> str:
    waiting = backlog(client, settings.taskyard_key_prefix)
    if waiting <= settings.audit_backlog_limit:
        return ""
    return f"audit backlog of {waiting} events exceeds AUDIT_BACKLOG_LIMIT: is the database up, is a writer running?"
