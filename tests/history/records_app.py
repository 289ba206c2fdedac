"""The platform's app with small tasks, for tests that need a worker, a redrive or a task with a secret."""

import logging
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import structlog

from tasks.app import app
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import PermanentError, Snooze
from taskyard.tasks.payloads import Hidden, Payload
from taskyard.tasks.policy import Exponential, Fixed, Policy
from taskyard.tasks.reporting import progress

__all__ = [
    "Chat",
    "Flaky",
    "Greet",
    "Mixed",
    "Nothing",
    "app",
    "chat",
    "die",
    "flaky",
    "greet",
    "late",
    "linger",
    "mixed",
    "plain",
]  # `celery -A` looks for the app here

SECOND = timedelta(seconds=1)


@app.task(name="records.plain", bind=True, max_retries=1, default_retry_delay=0)
def plain(self: Any, folder: str, *, times: int = 1) -> str:
    """Fail, also when it is retried, as long as there is no file `mended`; then write down how it was called."""
    if not (Path(folder) / "mended").exists():
        raise self.retry(exc=RuntimeError("not mended"))
    (Path(folder) / "done").write_text(f"{times}")
    return "done"


class Greet(Payload):
    """Whom to greet, and a secret."""

    name: str
    token: Annotated[str, Hidden()] = "none"
    diary: str | None = None  # a file: each run of `on_redrive` and of the handler appends a line


@task(
    "records.greet",
    Greet,
    queue=DEFAULT,
    policy=Policy(max_attempts=1),
    on_redrive=lambda payload: note(payload, "ready"),
)
def greet(payload: Greet) -> str:
    """Say hello."""
    note(payload, "greeted")
    if payload.name == "nobody":
        raise PermanentError("there is nobody to greet")
    return f"hello {payload.name}"


class Chat(Payload):
    """How much to say."""

    lines: int
    secret: Annotated[str, Hidden()] = "none"
    fail: bool = False


@task("records.chat", Chat, queue=DEFAULT, policy=Policy(max_attempts=2, backoff=Fixed(timedelta(0))))
def chat(payload: Chat) -> None:
    """Log lines in both ways, say how far it has come, and fail if asked to."""
    for number in range(payload.lines):
        progress(number + 1, payload.lines, "lines")
        if number % 2:
            structlog.get_logger("records.chat").info("chat.line", number=number)
        else:
            logging.getLogger("records.chat").warning("line %s\x1b[2J", number)
    if payload.fail:
        raise RuntimeError("nothing more to say")


class Linger(Payload):
    """Where to note each start, and what to wait for."""

    starts: str
    until: str


@task("records.linger", Linger, queue=DEFAULT, policy=Policy(max_attempts=1))
def linger(payload: Linger) -> None:
    """Note the start, and wait until a file is there."""
    with Path(payload.starts).open("a") as file:
        file.write("start\n")
    while not Path(payload.until).exists():
        time.sleep(0.02)


class Flaky(Payload):
    """How often to fail, and where to note the starts."""

    failures: int
    diary: str


@task("records.flaky", Flaky, queue=DEFAULT, policy=Policy(max_attempts=3, backoff=Exponential(SECOND, jitter=0)))
def flaky(payload: Flaky) -> None:
    """Fail the first `failures` times."""
    with Path(payload.diary).open("a+") as diary:
        diary.write(f"{time.time()}\n")
        diary.seek(0)
        if len(diary.readlines()) <= payload.failures:
            raise ConnectionError("not yet")


class Mixed(Payload):
    """What becomes of it: ok, retry (once), snooze (once), permanent or exhausted."""

    fate: str
    folder: str
    name: str


@task("records.mixed", Mixed, queue=DEFAULT, policy=Policy(max_attempts=3, backoff=Fixed(timedelta(0))))
def mixed(payload: Mixed) -> None:
    """Meet the fate; a file remembers whether it was met before."""
    if payload.fate == "permanent":
        raise PermanentError("never")
    if payload.fate == "exhausted":
        raise RuntimeError("again and again")
    mark = Path(payload.folder) / payload.name
    if payload.fate in {"retry", "snooze"} and not mark.exists():
        mark.touch()
        if payload.fate == "snooze":
            raise Snooze(timedelta(milliseconds=10))
        raise RuntimeError("once")


class Nothing(Payload):
    """No facts."""


@task("records.late", Nothing, queue=DEFAULT, policy=Policy(max_attempts=1, hard_limit=SECOND))
def late(_payload: Nothing) -> None:
    """Work for longer than the limit."""
    time.sleep(3)


@task("records.die", Nothing, queue=DEFAULT, policy=Policy(max_attempts=1))
def die(_payload: Nothing) -> None:
    """Take the process along, as a lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def note(payload: Greet, line: str) -> None:
    """Append a line to the diary."""
    if payload.diary:
        with Path(payload.diary).open("a") as diary:
            diary.write(f"{line}\n")
