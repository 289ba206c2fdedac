"""The platform's app with tasks for tests: `celery -A tests.beat.app beat|worker`."""

import os
import time
from datetime import UTC, datetime
from functools import lru_cache

import redis
from celery import current_task

from tasks.app import app
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.declaration import task
from taskyard.tasks.payloads import Payload
from taskyard.tasks.policy import Policy

__all__ = ["app", "mark"]
MARKS = "marks"  # list: one line for each start and each end of a run


class Mark(Payload):
    """What a run of the test task says."""

    label: str
    seconds: float = 0  # that it takes


@task("tests.mark", Mark, queue=DEFAULT, policy=Policy(max_attempts=1))
def mark(payload: Mark) -> None:
    """Say when it starts and when it ends."""
    _say("start", payload.label)
    time.sleep(payload.seconds)
    _say("end", payload.label)


def _say(what: str, label: str) -> None:
    _marks().rpush(MARKS, f"{what} {label} {current_task.request.id} {datetime.now(UTC).timestamp():.6f}")


@lru_cache(maxsize=1)
def _marks() -> redis.Redis:
    return redis.Redis.from_url(os.environ["MARKS_URL"], decode_responses=True)
