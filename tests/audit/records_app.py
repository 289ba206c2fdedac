"""The platform's app with small tasks, for tests that need a worker, a redrive or a task with a secret."""

import logging
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import structlog

from config.queues import DEFAULT
from tasks.app import app, task
from tasks.errors import PermanentError
from tasks.payloads import Hidden, Payload
from tasks.policy import Fixed, Policy
from tasks.reporting import progress

__all__ = ["Chat", "Greet", "app", "chat", "greet"]  # `celery -A` looks for the app here


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


def note(payload: Greet, line: str) -> None:
    """Append a line to the diary."""
    if payload.diary:
        with Path(payload.diary).open("a") as diary:
            diary.write(f"{line}\n")
