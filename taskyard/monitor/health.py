"""Can this deployment work? Broker, database, migrations, a consumer for each queue, the audit's backlog."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLateError
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine, text

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.history.writer.event_writer import backlog
from taskyard.migrations import schema
from taskyard.settings.platform import Settings
from taskyard.settings.queues import QUEUES

LIMIT = 3.0  # seconds for all checks


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    is_ok: bool
    note: str  # one line, without addresses


def check_all(client: Redis, engine: Engine, settings: Settings) -> list[Check]:
    """Make all checks at once; one that does not come back in time has failed."""
    checks: dict[str, Callable[[], str]] = {
        "broker": lambda: _ping(client),
        "database": lambda: _select(engine),
        "migrations": lambda: _standing(engine),
        "consumers": lambda: _consumers(client, settings),
        "audit": lambda: _backlog(client, settings),
    }
    pool = ThreadPoolExecutor(len(checks), thread_name_prefix="readiness")
    try:
        waiting = {name: pool.submit(check) for name, check in checks.items()}
        found = []
        for name, future in waiting.items():
            try:
                fault = future.result(LIMIT)
            except TooLateError:
                fault = f"no answer within {LIMIT:g} s"
            except Exception as error:  # noqa: BLE001 - each server has errors of its own; all mean: not ready
                fault = type(error).__name__
            found.append(Check(name, not fault, fault or "ok"))
        return found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ping(client: Redis) -> str:
    return "" if client.ping() else "no answer"


def _select(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return ""


def _standing(engine: Engine) -> str:
    behind = [seen.owner for seen in schema.standings(engine) if not seen.is_current]
    return f"the schema of {', '.join(behind)} is not at its head: celery -A tasks db upgrade" if behind else ""


def _consumers(client: Redis, settings: Settings) -> str:
    if settings.taskyard_transport == "redis":  # stock kombu does not say who listens
        return ""
    control = QueueControl(client, settings.taskyard_key_prefix)
    lonely = [queue.name for queue in QUEUES if not control.counts(queue.name).consumers]
    return f"no worker takes from {', '.join(lonely)}" if lonely else ""


def _backlog(client: Redis, settings: Settings) -> str:
    waiting = backlog(client, settings.taskyard_key_prefix)
    if waiting <= settings.audit_backlog_limit:
        return ""
    return (
        f"{waiting} events are not in SQL yet, more than AUDIT_BACKLOG_LIMIT: is the database up, is a writer running?"
    )
