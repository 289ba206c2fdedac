"""The platform's app with a task that does nothing, for `bench.flows`."""

from tasks.app import app
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload

__all__ = ["Nothing", "app", "nothing"]  # `celery -A` looks for the app here


class Nothing(Payload):
    """A number, as a payload has one."""

    number: int


@task("flowbench.nothing", Nothing, queue=DEFAULT)
def nothing(payload: Nothing) -> int:
    """Do nothing."""
    return payload.number
