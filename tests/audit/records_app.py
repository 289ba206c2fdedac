"""The platform's app with two small tasks, for tests that need a worker, a redrive or a task with a secret."""

from pathlib import Path
from typing import Annotated

from config.queues import DEFAULT
from tasks.app import app, task
from tasks.errors import PermanentError
from tasks.payloads import Hidden, Payload
from tasks.policy import Policy

__all__ = ["Greet", "app", "greet"]  # `celery -A` looks for the app here


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


def note(payload: Greet, line: str) -> None:
    """Append a line to the diary."""
    if payload.diary:
        with Path(payload.diary).open("a") as diary:
            diary.write(f"{line}\n")
