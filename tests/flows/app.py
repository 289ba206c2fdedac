"""The platform's app with tasks that note what they do, fail, wait or die as they are told."""

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from tasks.app import app
from taskyard.flows.running.current import Pending, add_steps, failures_of, result_of, results_of
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import Fixed, Policy
from tests.flows import crashing

__all__ = ["app"]  # `celery -A` looks for the app here

if "CRASH_AT" in os.environ:
    crashing.install(int(os.environ["CRASH_AT"]), Path(os.environ["CRASH_FOLDER"]))

PATIENT = Policy(max_attempts=3, backoff=Fixed(timedelta(milliseconds=20)))


class Act(Payload):
    """What a step does."""

    name: str
    notes: str = ""  # a file: each execution appends the name
    fail_first: int = 0  # executions that fail
    is_permanent: bool = False  # it fails for good ...
    until: str = ""  # ... as long as there is no such file
    pend: int = 0  # executions that are still pending
    value: Any = None
    die_first: int = 0  # executions that kill their process
    hold: str = ""  # waits until there is such a file
    is_armed: bool = False  # what its thread does after it is counted; see crashing


def executions(payload: Act) -> int:
    """How often this step was executed, this time included."""
    path = Path(payload.notes)
    with path.open("a") as notes:
        notes.write(f"{payload.name}\n")
    return path.read_text().splitlines().count(payload.name)


@task("flowtest.act", Act, queue=DEFAULT, policy=PATIENT)
def act(payload: Act) -> Any:
    """Do as told."""
    return _act(payload)


@task("flowtest.act_async", Act, queue=DEFAULT, policy=PATIENT)
async def act_async(payload: Act) -> Any:
    """Do as told, after a turn of the event loop."""
    await asyncio.sleep(0)
    return _act(payload)


def _act(payload: Act) -> Any:
    count = executions(payload) if payload.notes else 1
    while payload.hold and not Path(payload.hold).exists():
        os.sched_yield()
    if count <= payload.die_first:
        os.kill(os.getpid(), signal.SIGKILL)
    if count <= payload.fail_first:
        raise RuntimeError(f"{payload.name} failed in execution {count}")
    if payload.is_permanent and not (payload.until and Path(payload.until).exists()):
        raise PermanentError(f"{payload.name} cannot be")
    if count <= payload.pend:
        raise Pending(f"look {count}")
    if payload.is_armed:
        crashing.arm()
    return payload.value


class Gather(Payload):
    """What a body reads."""

    single: str = ""  # name of a step
    group: str = ""  # name of a group


@task("flowtest.gather", Gather, queue=DEFAULT, policy=PATIENT)
def gather(payload: Gather) -> Any:
    """Return the results of other steps by name."""
    return _gather(payload)


def _gather(payload: Gather) -> Any:
    if payload.single:
        return {"result": result_of(payload.single, int), "failures": failures_of(payload.single)}
    values = dict(results_of(payload.group, int))
    return {"count": len(values), "sum": sum(values.values()), "failures": len(failures_of(payload.group))}


@task("flowtest.gather_async", Gather, queue=DEFAULT, policy=PATIENT)
async def gather_async(payload: Gather) -> Any:
    """As `gather`, without blocking the event loop."""
    return await asyncio.to_thread(_gather, payload)


class Split(Payload):
    """How many steps to add."""

    parts: int
    notes: str = ""


@task("flowtest.split", Split, queue=DEFAULT, policy=PATIENT)
def split(payload: Split) -> int:
    """Add a group."""
    members = [Act(name=f"part{i}", notes=payload.notes, value=i) for i in range(payload.parts)]
    add_steps().fan_out("parts", act, members, at_once=4)
    return payload.parts


@task("flowtest.split_async", Split, queue=DEFAULT, policy=PATIENT)
async def split_async(payload: Split) -> int:
    """As `split`."""
    await asyncio.sleep(0)
    members = [Act(name=f"part{i}", notes=payload.notes, value=i) for i in range(payload.parts)]
    add_steps().fan_out("parts", act_async, members, at_once=4)
    return payload.parts
