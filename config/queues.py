"""Queues of the platform, and what their priorities mean."""

from dataclasses import dataclass
from typing import Literal

type PriorityName = Literal["high", "normal", "low"]

PRIORITIES: dict[str, int] = {"high": 9, "normal": 5, "low": 1}  # 0-9 on the wire, 9 is taken first
NORMAL = PRIORITIES["normal"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A named queue; one per domain, with priorities inside it."""

    name: str
    profile: str  # the kind of worker process that serves it: see `architecture.md`, "Concurrency"


DEFAULT = Queue("celery", profile="io")  # where a foreign Celery client sends when it names no queue
DEAD_LETTERS = Queue("dead-letter", profile="io")
MAINTENANCE = Queue("maintenance", profile="io")
WEBHOOKS = Queue("webhook-deliveries", profile="io")
RECONCILIATION = Queue("reconciliation", profile="io")
MARKET_RESOLUTION = Queue("market-resolution", profile="io")
BACKUPS = Queue("backup-verification", profile="prefork")  # hours of CPU and disk, under a hard limit

QUEUES: tuple[Queue, ...] = (DEFAULT, DEAD_LETTERS, MAINTENANCE, WEBHOOKS, RECONCILIATION, MARKET_RESOLUTION, BACKUPS)


def priority_number(priority: PriorityName | int) -> int:
    """
    Return the wire's number, 0-9, 9 first.

    >>> priority_number("high"), priority_number(0)
    (9, 0)

    Raises:
        ValueError: Neither a known name nor 0-9.
    """
    if isinstance(priority, str) and priority in PRIORITIES:
        return PRIORITIES[priority]
    if isinstance(priority, int) and not isinstance(priority, bool) and 0 <= priority <= PRIORITIES["high"]:
        return priority
    raise ValueError(f"priority {priority!r}: use high, normal, low or a number from 0 to 9 (9 is taken first)")
