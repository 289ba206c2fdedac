"""Validation of what follows a task in a canvas, so that a chain with an invalid step fails where it is sent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celery import Celery

from taskyard.tasks.errors import InvalidPayloadError
from taskyard.tasks.platform_task import PlatformTask

FOLLOWERS = ("chain", "chord", "link", "link_error")  # options of a call that hold signatures
NESTED = {"celery.chain": ("tasks",), "celery.group": ("tasks",), "celery.chord": ("header", "body")}


def check_followers(app: Celery, options: Mapping[str, Any]) -> None:
    """
    Check the payloads of all typed tasks that follow a call; tasks that this process does not know are not checked.

    Raises:
        InvalidPayloadError: One does not fit its model, or would get a result as a positional argument.
    """
    for name in FOLLOWERS:
        for step in _steps(options.get(name)):
            task = app.tasks.get(str(step.get("task")))
            if isinstance(task, PlatformTask):
                _check(task, step)


def _check(task: PlatformTask, step: Mapping[str, Any]) -> None:
    if step.get("args") or not step.get("immutable"):
        raise InvalidPayloadError(
            f"step {task.name}: it would get the result of another step as a positional argument; use .si(), not .s()"
        )
    try:
        task.payload.from_wire(step.get("kwargs") or {})
    except InvalidPayloadError as error:
        raise InvalidPayloadError(f"step {task.name}: {error}") from None


def _steps(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each signature in a signature or a list of them, and those within it."""
    if isinstance(value, Mapping):
        yield value
        inside = value.get("kwargs") or {}
        for part in NESTED.get(str(value.get("task")), ()):
            yield from _steps(inside.get(part))
        for name in FOLLOWERS:
            yield from _steps((value.get("options") or {}).get(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _steps(each)
