"""The app of this process, for all that is below it: tasks are declared before it exists, and found through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery

from taskyard.domain import Domain
from taskyard.settings.celery_settings import kombus
from taskyard.settings.queues import Queue


class PlatformApp(Celery):
    """What the library's parts need of the app; made by :class:`taskyard.app.Taskyard`."""

    domains: Sequence[Domain] = ()
    request_of_plain_tasks = "taskyard.broker.worker.request:PlatformRequest"  # their final failures can be redriven

    def add_task(self, declared: "DeclaredTask") -> None:
        """Make a declared task one of this app's, and let its workers take from the task's queue."""
        app: Any = self
        if app.configured and declared.queue.name not in app.amqp.queues:
            app.amqp.queues.select_add(kombus(declared.queue))
        make: Any = self.task(bind=True, name=declared.name, shared=False, **declared.attributes)
        make(declared.run)


@dataclass(frozen=True, slots=True)
class DeclaredTask:
    """A task that was declared by ``@task``: each app of the process gets its own class of it."""

    name: str
    run: Callable[..., Any]
    queue: Queue
    attributes: dict[str, Any]


class NoAppError(RuntimeError):
    """There is no app in this process that a task could be sent with."""


_apps: list[PlatformApp] = []
_declared: dict[str, DeclaredTask] = {}


def current_app() -> PlatformApp:
    """
    Return the app of this process; of several, the newest.

    Raises:
        NoAppError: No app was made yet.
    """
    if not _apps:
        raise NoAppError("this process has no app: make one first, such as app = Taskyard('shop'), or import yours")
    return _apps[-1]


def add_app(app: PlatformApp) -> None:
    """Make an app that of this process, with all tasks that were declared so far."""
    _apps.append(app)
    for declared in _declared.values():
        app.add_task(declared)


def declare_task(declared: DeclaredTask) -> None:
    """
    Remember a task for the apps that are made later, and add it to those that are there.

    Raises:
        ValueError: The name is taken.
    """
    if declared.name in _declared:
        raise ValueError(f"task {declared.name!r} is declared twice")
    _declared[declared.name] = declared
    for app in _apps:
        app.add_task(declared)


def is_declared(name: str) -> bool:
    """Tell whether a task of this name was declared."""
    return name in _declared
