"""Problems of a deployment and how to fix them; more than readiness, for people."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import SecretStr
from redis import Redis, RedisError
from redis.exceptions import NoPermissionError
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlmodel import Session

from taskyard.beat.engine.leadership import current_leader
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.server.clock_check import SKEW
from taskyard.domain import Domain
from taskyard.findings import Finding
from taskyard.history.queries.lost_runs import HistoryBehindError, LostRuns
from taskyard.history.queries.runs import RunFilter
from taskyard.history.writer.event_writer import backlog
from taskyard.migrations import schema
from taskyard.monitor.backlog_checks import (
    check_dead_letters,
    check_dead_messages,
    check_schedules,
    check_stock_lists,
)
from taskyard.monitor.broker_checks import check_broker_clock, check_owner_of_keys, clock_finding
from taskyard.monitor.broker_configuration import check_broker, check_rights
from taskyard.settings.group import SettingsError
from taskyard.settings.loading import current_settings, setting_groups
from taskyard.settings.platform import Settings
from taskyard.settings.profiles import PROFILES
from taskyard.tasks.current_app import current_app
from taskyard.tasks.known_queues import known_queues
from taskyard.tasks.platform_task import PlatformTask
from taskyard.tasks.start_checks import check_settings

MASK = "***"
LIMIT = 20.0  # seconds for all checks together


def examine(client: Redis, engine: Engine, settings: Settings) -> list[Finding]:
    """
    Run all checks at once; a server that does not answer is a finding, not an error.

    Takes no longer than the slowest check, and at most `LIMIT`: a hanging server would make each check wait for it.
    """
    current_app().loader.import_default_modules()  # one thread imports, not several
    examinations = _examinations(client, engine, settings)
    found: dict[str, list[Finding]] = {}

    def run(name: str) -> None:
        found[name] = _findings(name, examinations[name])

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in examinations]
    deadline = time.monotonic() + LIMIT
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    late = Finding("", "fault", f"no answer within {LIMIT:g} s", "check that the servers respond")
    return [each for name in examinations for each in found.get(name, [replace(late, name=name)])]


def _findings(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except ImportError as error:
        return [Finding(name, "fault", str(error), "correct the domain's manifest")]
    except NoPermissionError as error:
        return [Finding(name, "fault", f"the broker refuses this user: {error}", _RIGHTS_FIX)]
    except (RedisError, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        fix = "check DATABASE_URL, and that the server runs" if isinstance(error, SQLAlchemyError) else _BROKER_FIX
        return [Finding(name, "fault", f"no answer: {reason}", fix)]


def shown_settings() -> dict[str, Any]:
    """Return all settings of this process with secrets and passwords masked."""
    groups = [current_settings(group) for group in setting_groups()]
    return {name.upper(): _masked(getattr(group, name)) for group in groups for name in type(group).model_fields}


_BROKER_FIX = "check REDIS_URL, and that the server runs"
_RIGHTS_FIX = "docs/deployment.md, Users of the broker, has the rules"


def _examinations(client: Redis, engine: Engine, settings: Settings) -> dict[str, Callable[[], Iterator[Finding]]]:
    prefix = settings.taskyard_key_prefix
    control = QueueControl(client, prefix)
    return {
        "broker": lambda: check_broker(client),
        "broker rights": lambda: check_rights(client, settings),
        "broker clock": lambda: check_broker_clock(client),
        "platform": lambda: check_owner_of_keys(client, prefix),
        "database": lambda: _database(engine),
        "schema": lambda: _schema(engine),
        "scheduler": lambda: _scheduler(client, prefix),
        "queues": lambda: _queues(control, settings),
        "dead messages": lambda: check_dead_messages(control, engine, known_queues()),
        "stock messages": lambda: _stock_lists(client, settings),
        "dead letters": lambda: check_dead_letters(engine),
        "schedules": lambda: check_schedules(engine),
        "tasks": _tasks,
        "settings": _settings,
        "audit": lambda: _audit(client, settings),
        "runs": lambda: _runs(client, engine, settings),
        **{f"domain {domain.name}": partial(_domain, domain) for domain in current_app().domains if domain.checks},
    }


def _domain(domain: Domain) -> Iterator[Finding]:
    yield from domain.load("checks")()


def _database(engine: Engine) -> Iterator[Finding]:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            version = connection.execute(text("SELECT sqlite_version()")).scalar_one()
            yield Finding("database", "ok", f"SQLite {version}; for production use PostgreSQL")
            return
        yield Finding("database", "ok", f"PostgreSQL {connection.execute(text('SHOW server_version')).scalar_one()}")
        yield clock_finding("database clock", connection.execute(text("SELECT clock_timestamp()")).scalar_one())
        has_trigrams = connection.execute(text("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'")).scalar()
        if has_trigrams:
            yield Finding("text search", "ok", "pg_trgm installed")
        else:
            fix = "as a superuser: CREATE EXTENSION pg_trgm; then create the trigram indexes of the migrations"
            yield Finding("text search", "warning", "pg_trgm is missing: jobs ls --text scans all rows", fix)


def _schema(engine: Engine) -> Iterator[Finding]:
    for seen in schema.standings(engine):
        if seen.is_current:
            yield Finding(f"schema of {seen.owner}", "ok", f"{seen.current} (head)")
        else:
            note = f"{seen.current}; head is {seen.head}" if seen.current else f"not migrated; head is {seen.head}"
            yield Finding(f"schema of {seen.owner}", "fault", note, "celery -A tasks db upgrade")


def _scheduler(client: Redis, prefix: str) -> Iterator[Finding]:
    leader = current_leader(client, prefix)
    if leader is None:
        yield Finding("scheduler", "fault", "no beat process is leader", "start celery -A tasks beat")
    else:
        yield Finding("scheduler", "ok", f"leader is {leader.owner}")


def _queues(control: QueueControl, settings: Settings) -> Iterator[Finding]:
    if settings.taskyard_transport == "redis":
        yield Finding("queues", "warning", "stock kombu does not track consumers", "unset TASKYARD_TRANSPORT")
        return
    for queue in known_queues():
        counts = control.counts(queue)
        name = f"queue {queue}"
        if not counts.consumers:
            fix = f"celery -A tasks worker -Q {queue}"
            yield Finding(name, "fault", f"no consumer, {counts.waiting} waiting", fix)
        elif counts.is_paused:
            fix = f"celery -A tasks queues resume {queue}"
            yield Finding(name, "warning", f"paused: {counts.limits.pause_reason or 'no reason given'}", fix)
        else:
            yield Finding(name, "ok", f"{_count(counts.consumers, 'consumer')}, {counts.waiting} waiting")


def _stock_lists(client: Redis, settings: Settings) -> Iterator[Finding]:
    if settings.taskyard_transport != "redis":
        yield from check_stock_lists(client, known_queues())


def _tasks() -> Iterator[Finding]:
    ours = [task for task in current_app().tasks.values() if isinstance(task, PlatformTask)]
    yield Finding("tasks", "ok", f"{len(ours)} tasks, each with a declared queue")
    if endless := sorted(task.name for task in ours if not _keeps_its_limits(task)):
        fix = "docs/outcomes.md, Time limits: a queue of another profile, or a time-out in the handler"
        yield Finding("time limits", "warning", f"not enforced by the pool of their queue: {', '.join(endless)}", fix)


def _settings() -> Iterator[Finding]:
    try:
        check_settings()
    except SettingsError as error:
        for line in error.message.splitlines():
            yield Finding("settings", "fault", line, "workers of the tasks that need it do not start")
    else:
        yield Finding("settings", "ok", "valid for the tasks of all queues")


def _keeps_its_limits(task: PlatformTask) -> bool:
    if task.policy.soft_limit is None and task.policy.hard_limit is None:
        return True
    pools = {profile.pool for profile in PROFILES if profile.name == task.home.profile}
    return pools <= ({"asyncio", "prefork"} if task.is_async else {"prefork"})


def _audit(client: Redis, settings: Settings) -> Iterator[Finding]:
    if not settings.audit_enabled:
        yield Finding("audit", "warning", "disabled: nothing is recorded", "unset AUDIT_ENABLED")
        return
    waiting = backlog(client, settings.taskyard_key_prefix)
    if waiting > settings.audit_backlog_limit:
        fix = "check that the database is up, and that a worker or celery -A tasks audit write is running"
        yield Finding("audit", "fault", f"{waiting} events not written yet", fix)
    else:
        yield Finding("audit", "ok", f"{waiting} events not written yet")


def _runs(client: Redis, engine: Engine, settings: Settings) -> Iterator[Finding]:
    if settings.taskyard_transport == "redis" or not settings.audit_enabled:
        return
    found = LostRuns(lambda: Session(engine, expire_on_commit=False), client, settings.taskyard_key_prefix, SKEW)
    try:
        lost = len(list(found.find(RunFilter(), pages=1)))
    except HistoryBehindError:  # the finding above says so
        return
    if lost:
        yield Finding(
            "runs",
            "warning",
            f"{lost} recent unfinished runs have no message in the broker",
            "celery -A tasks jobs lost",
        )
    else:
        yield Finding("runs", "ok", "recent unfinished runs are in the broker")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return MASK


def _masked(value: Any) -> Any:
    match value:
        case SecretStr():
            return MASK
        case str() if "://" in value:
            return _without_password(value)
        case timedelta():
            return value.total_seconds()
        case tuple():
            return [_masked(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)
