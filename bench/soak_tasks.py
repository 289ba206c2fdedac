"""The platform's app with three small tasks for `bench.soak`: one that computes, one that blocks, one that awaits."""

import asyncio
import hashlib
import time

from config.queues import BACKUPS
from tasks.app import app
from taskyard.settings.queues import DEFAULT, WEBHOOKS
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload

__all__ = ["TASKS", "Work", "app"]  # `celery -A` looks for the app here


class Work(Payload):
    """A number and some text, as a payload has them."""

    number: int
    text: str = ""


@task("soak.compute", Work, queue=BACKUPS)
def compute(payload: Work) -> None:
    """Use the processor for about 2 ms."""
    hashlib.pbkdf2_hmac("sha256", payload.text.encode(), b"soak", 5000)


@task("soak.block", Work, queue=DEFAULT)
def block(payload: Work) -> None:  # noqa: ARG001 - it only waits
    """Block for 20 ms, as a query does."""
    time.sleep(0.02)  # is the work


@task("soak.wait", Work, queue=WEBHOOKS)
async def wait(payload: Work) -> None:  # noqa: ARG001 - as above
    """Wait for 50 ms, as an endpoint does that thinks."""
    await asyncio.sleep(0.05)


TASKS = {"processes": compute, "threads": block, "asyncio": wait}  # by the pool that serves it
