"""What a worker looks at before it starts: whether the tasks of its queues can use the settings they need."""

from collections.abc import Callable, Collection
from typing import Any

from celery import bootsteps

from config.queues import Queue
from config.settings import Settings, SettingsError, current_settings

type Check = Callable[[Settings], None]

_checks: list[tuple[Queue, Check]] = []


def before_work(queue: Queue) -> Callable[[Check], Check]:
    """
    Let a check run before a worker of this queue starts.

    It raises SettingsError for what no task of the queue could work with. It looks at texts and at files that must be
    there before the first task, never at another host, nor at what may still come, such as a backup.
    """

    def register(check: Check) -> Check:
        _checks.append((queue, check))
        return check

    return register


def check_settings(settings: Settings, queues: Collection[str] | None = None) -> None:
    """
    Run the checks of these queues by name; None: of all.

    Raises:
        SettingsError: With a line for each fault.
    """
    faults = []
    for queue, check in _checks:
        if queues is None or queue.name in queues:
            try:
                check(settings)
            except SettingsError as error:
                faults.append(error.message)
    if faults:
        raise SettingsError("\n".join(faults))


class SettingsCheck(bootsteps.Step):
    """Ends a worker before it takes a message that could only fail."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        check_settings(current_settings(), parent.app.amqp.queues.consume_from)
