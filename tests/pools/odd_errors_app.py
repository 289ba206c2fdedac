"""The app of these tests with handlers that end in odd ways."""

import asyncio
import time
from datetime import timedelta

from celery.exceptions import SoftTimeLimitExceeded
from greenlet import GreenletExit

from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.policy import Fixed, Policy
from taskyard.tasks.sending import find_task
from tests.pools.app import Label, app, nap, note, records

__all__ = ["app"]  # `celery -A` looks for the app here

ERRORS: dict[str, type[BaseException]] = {
    "exit": SystemExit,
    "cancel": asyncio.CancelledError,
    "memory": MemoryError,
    "greenlet": GreenletExit,
}
STARTS = 6  # that `tests.pools.abrupt_exit_app` waits for
TWICE = Policy(max_attempts=2, backoff=Fixed(timedelta(milliseconds=10)))


@task("odd.throw", Label, queue=DEFAULT, policy=TWICE)
async def throw(payload: Label) -> None:
    """Raise what the label says."""
    await asyncio.sleep(0)
    raise ERRORS[payload.label]("odd")


@task("odd.child_throws", Label, queue=DEFAULT, policy=TWICE)
async def child_throws(payload: Label) -> None:
    """Start a coroutine that raises what the label says."""

    async def child() -> None:
        raise ERRORS[payload.label]("odd")

    await asyncio.create_task(child())


@task("odd.ask_again", Label, queue=DEFAULT, policy=TWICE)
async def ask_again(payload: Label) -> None:
    """Ask for another attempt in Celery's words."""
    note("try", payload.label)
    find_task("odd.ask_again").retry(countdown=0.01)


@task("odd.replace", Label, queue=DEFAULT, policy=TWICE)
async def replace(payload: Label) -> None:
    """Let another task take its place."""
    note("try", payload.label)
    find_task("odd.replace").replace(find_task(nap.name).si(label="instead"))


@task(
    "odd.crowd",
    Label,
    queue=DEFAULT,
    policy=Policy(max_attempts=1, soft_limit=timedelta(seconds=1), hard_limit=timedelta(seconds=60)),
)
async def crowd(payload: Label) -> None:
    """Overstay the soft limit with a group of tasks, inside its block or at its end."""

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note("child cancelled", payload.label)
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            if payload.label == "inside":
                await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        note("soft", payload.label)


@task("odd.resist", Label, queue=DEFAULT)
async def resist(payload: Label) -> None:
    """Swallow every cancellation until the key `go` is there."""
    note("start", payload.label)
    while not records.exists("go"):
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            note("swallowed", payload.label)


@task("odd.occupy", Label, queue=DEFAULT)
def occupy(payload: Label) -> None:
    """Hold a thread until the key `go` is there."""
    note("start", payload.label)
    while not records.exists("go"):
        time.sleep(0.05)
    note("end", payload.label)
