"""The queues of an app: those of its domains, and those that its own modules name."""

from functools import cache
from typing import Any

from taskyard.settings.queues import QUEUES
from taskyard.tasks.current_app import PlatformApp, current_app


def known_queues() -> list[str]:
    """
    Return the names of all queues of this process's app, declared ones first.

    Imports the app's modules once, autodiscovered ones included: tasks declare their queues when they are imported, and
    plain Celery tasks only have the name of one.
    """
    app: Any = current_app()
    _import_modules(app)
    declared = [queue.name for queue in QUEUES]
    plain = {str(task.queue) for task in list(app.tasks.values()) if getattr(task, "queue", None)}
    configured = {str(name) for name in app.amqp.queues}
    return declared + sorted((plain | configured) - set(declared))


@cache
def _import_modules(app: PlatformApp) -> None:
    app.loader.import_default_modules()
