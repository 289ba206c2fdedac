"""The platform's app with a queue of its own, declared when all is configured already."""

from pathlib import Path

from tasks.app import app
from taskyard.settings.queues import Queue
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload

__all__ = ["app"]  # `celery -A` looks for the app here

app.amqp.queues  # noqa: B018 - from here on, it is read no more
ORDERS = Queue("shop-orders", profile="io")


class Ship(Payload):
    """Where to note that it was done."""

    note: str


@task("own.ship", Ship, queue=ORDERS)
def ship(payload: Ship) -> None:
    """Note it."""
    Path(payload.note).write_text("done")
