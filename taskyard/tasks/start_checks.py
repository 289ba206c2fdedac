"""What a worker looks at before it starts: whether its tasks can be run, and can use the settings they need."""

from collections.abc import Callable, Collection
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

import click
import redis
import structlog
from celery import Celery, bootsteps

from taskyard.broker.server.client import shared_client
from taskyard.broker.server.rights import Role, rights_problem
from taskyard.settings.group import SettingsError, SettingsGroup
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import Queue
from taskyard.tasks.platform_task import PlatformTask

log = structlog.stdlib.get_logger(__name__)
_notices: list[tuple[Queue, type[SettingsGroup], Callable[[Any], str]]] = []
_checks: list[tuple[Queue, type[SettingsGroup], Callable[[Any], None]]] = []


def before_work[G: SettingsGroup](queue: Queue, group: type[G]) -> Callable[[Callable[[G], None]], Callable[[G], None]]:
    """
    Let a check of a group of settings run before a worker of this queue starts.

    It raises SettingsError for what no task of the queue could work with. It looks at texts and at files that must be
    there before the first task, never at another host, nor at what may still come, such as a backup.
    """

    def register(check: Callable[[G], None]) -> Callable[[G], None]:
        _checks.append((queue, group, check))
        return check

    return register


def said_at_start[G: SettingsGroup](queue: Queue, group: type[G]) -> Callable[[Callable[[G], str]], Callable[[G], str]]:
    """Let a worker of this queue log once at its start what a group of settings lacks; an empty text is not logged."""

    def register(notice: Callable[[G], str]) -> Callable[[G], str]:
        _notices.append((queue, group, notice))
        return notice

    return register


def check_settings(queues: Collection[str] | None = None) -> None:
    """
    Run the checks of these queues by name, on the settings of this process; None: of all.

    Raises:
        SettingsError: With a line for each fault.
    """
    faults = []
    for queue, group, check in _checks:
        if queues is None or queue.name in queues:
            try:
                check(current_settings(group))
            except SettingsError as error:
                faults.append(error.message)
    if faults:
        raise SettingsError("\n".join(faults))


class NotAwaitedError(click.ClickException, TypeError):
    """A coroutine that nobody would await, so that its task would be done without having begun."""

    exit_code = 2


def refuse_coroutines(app: Celery) -> None:
    """
    Refuse `async def` under Celery's own decorators: Celery calls it, and takes the coroutine for its result.

    Raises:
        NotAwaitedError: It names the tasks.
    """
    plain = {name: task for name, task in app.tasks.items() if not isinstance(task, PlatformTask)}
    found = sorted(name for name, task in plain.items() if _is_coroutine(task))
    if found:
        raise NotAwaitedError(
            f"async def, which only Taskyard's own @task awaits: {', '.join(found)}; "
            "declare them with it, or make them def"
        )


class MissingRightsError(click.ClickException):
    """The broker's user may not do what this process needs."""


def refuse_missing_rights(role: Role) -> None:
    """
    Ask the broker whether its user may do all that a process of ours needs; one that is away is not asked.

    Raises:
        MissingRightsError: It names the user and what is missing.
    """
    settings = current_settings()
    if settings.taskyard_transport == "redis":
        return
    try:
        problem = rights_problem(shared_client(settings.redis_url), settings.taskyard_key_prefix, role)
    except (redis.RedisError, OSError):
        return
    if problem is not None:
        raise MissingRightsError(problem)


class StartCheck(bootsteps.Step):
    """Ends a worker before it takes a message that could only fail."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        refuse_coroutines(parent.app)
        refuse_missing_rights("worker")
        queues = parent.app.amqp.queues.consume_from
        check_settings(queues)
        for queue, group, notice in _notices:
            if queue.name in queues and (text := notice(current_settings(group))):
                log.warning("worker.setting_missing", queue=queue.name, note=text)


def _is_coroutine(task: Any) -> bool:
    run = getattr(task, "_orig_run", task.run)  # Celery's autoretry_for puts a function of its own before it
    return iscoroutinefunction(run) or isasyncgenfunction(run)
