"""The platform's app with handlers that await, block and overstay; each notes what happens to it in a list."""

import asyncio
import logging
import os
import time
from datetime import timedelta

import redis
from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded

from tasks.app import app
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.execution import attempt_number
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import Fixed, Policy
from taskyard.tasks.sending import find_task

__all__ = ["app"]  # `celery -A` looks for the app here

records = redis.Redis.from_url(os.environ.get("RECORDS_URL", "redis://127.0.0.1:1/0"), decode_responses=True)
ONCE = Policy(max_attempts=1)


class Label(Payload):
    """What the notes are called."""

    label: str
    seconds: float = 0


def note(word: str, label: str, *more: object) -> None:
    """Note a word, the label, and facts."""
    records.rpush("notes", " ".join(map(str, (word, label, *more))))


@task("pools.nap", Label, queue=DEFAULT)
async def nap(payload: Label) -> None:
    """Sleep, as an endpoint does that thinks."""
    await asyncio.sleep(payload.seconds)
    note("end", payload.label)


@task("pools.hold", Label, queue=DEFAULT)
async def hold(payload: Label) -> None:
    """Wait for the key `go`; a cancellation is noted."""
    note("start", payload.label)
    try:
        while not records.exists("go"):  # noqa: ASYNC110 - the test sets it from another process
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        note("cancelled", payload.label)
        raise
    note("end", payload.label)


@task("pools.talk", Label, queue=DEFAULT)
async def talk(payload: Label) -> None:
    """Wait for the key `go`, and log a line."""
    note("start", payload.label)
    while not records.exists("go"):  # noqa: ASYNC110 - the test sets it from another process
        await asyncio.sleep(0.05)
    logging.getLogger(__name__).warning("said")
    note("said", payload.label)


@task("pools.identify", Label, queue=DEFAULT, policy=Policy(max_attempts=2, backoff=Fixed(timedelta(milliseconds=10))))
async def identify(payload: Label) -> None:
    """Note who runs before and after a pause, in the coroutine and in one that it starts; fail the first time."""

    async def inner() -> str:
        await asyncio.sleep(0.01)
        return str(current_task.request.id)

    before = str(current_task.request.id)
    first, second = await asyncio.gather(inner(), inner())
    request = find_task("pools.identify").request
    note("is", payload.label, before, first, second, str(request.id))
    if attempt_number(find_task("pools.identify")) == 1:
        raise ValueError("once more")


@task(
    "pools.soft",
    Label,
    queue=DEFAULT,
    policy=Policy(max_attempts=1, soft_limit=timedelta(seconds=1), hard_limit=timedelta(seconds=30)),
)
async def soft(payload: Label) -> None:
    """Overstay the soft limit, and tidy up."""
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0.01)
        note("soft", payload.label)


@task("pools.hard", Label, queue=DEFAULT, policy=Policy(max_attempts=3, hard_limit=timedelta(seconds=1)))
async def hard(payload: Label) -> None:
    """Overstay the hard limit."""
    try:
        await asyncio.sleep(60)
    finally:
        note("hard", payload.label)


@task("pools.fail", Label, queue=DEFAULT, policy=ONCE)
async def fail(payload: Label) -> None:
    """Fail for good."""
    raise PermanentError(payload.label)


@task("pools.parent", Label, queue=DEFAULT)
async def parent(payload: Label) -> None:
    """Enqueue another task without blocking the loop."""
    run = await nap.adelay(label=f"child of {payload.label}")
    note("sent", payload.label, run.id)


@task("pools.block", Label, queue=DEFAULT)
def block(payload: Label) -> None:
    """Block its thread, as a library does that knows no loop."""
    note("start", payload.label)
    time.sleep(payload.seconds)
    note("end", payload.label)


@task("pools.tick", Label, queue=DEFAULT)
async def tick(payload: Label) -> None:
    """Note the longest time by which a pause of 5 ms was late, over so many seconds."""
    note("start", payload.label)
    end, worst = time.monotonic() + payload.seconds, 0.0
    while (now := time.monotonic()) < end:
        await asyncio.sleep(0.005)
        worst = max(worst, time.monotonic() - now - 0.005)
    note("worst", payload.label, f"{worst:.4f}")


@task("pools.stall", Label, queue=DEFAULT)
async def stall(payload: Label) -> None:
    """Do what no coroutine should: block the loop."""
    time.sleep(payload.seconds)  # noqa: ASYNC251 - the fault that the worker must report
    note("end", payload.label)
