"""Queues of the platform, and what their priorities mean."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

type ProfileName = Literal["io", "prefork"]
type PriorityName = Literal["high", "normal", "low"]

PRIORITIES: dict[str, int] = {"high": 9, "normal": 5, "low": 1}  # 0-9 on the wire, 9 is taken first
NORMAL = PRIORITIES["normal"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A named queue; one per domain, with priorities inside it."""

    name: str
    profile: ProfileName  # the kind of worker process that serves it: io has threads, prefork processes
    share: float | None = None  # 0-1 of the slots that exist, which its running messages may take; None: all
    group_share: float | None = None  # as above, for the messages of one group key

    def slots_of(self, total: int) -> int | None:
        """
        Return how many of so many slots its messages may take; at least one.

        >>> Queue("q", "io", share=0.7).slots_of(10)
        7
        """
        return None if self.share is None else max(1, int(total * self.share))

    def group_slots_of(self, total: int) -> int | None:
        """As `slots_of`, for the messages of one group key; rounded up."""
        return None if self.group_share is None else max(1, math.ceil(total * self.group_share))


DEFAULT = Queue("celery", profile="io")  # where a foreign Celery client sends when it names no queue
DEAD_LETTERS = Queue("dead-letter", profile="io")
MAINTENANCE = Queue("maintenance", profile="io")
# One endpoint takes a part of the slots, the slow ones share a few, and some are left to all other queues.
WEBHOOKS = Queue("webhook-deliveries", profile="io", share=0.7, group_share=0.3)
SLOW_WEBHOOKS = Queue("webhook-slow", profile="io", share=0.2)

QUEUES = [DEFAULT, DEAD_LETTERS, MAINTENANCE, WEBHOOKS, SLOW_WEBHOOKS]  # see `declare`
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def declare(queue: Queue) -> None:
    """
    Let workers of this process's app take from a queue of an app's own; what is declared already stays.

    Raises:
        ValueError: The name cannot be one, another queue has it, or there is no such profile.
    """
    if queue in QUEUES:
        return
    if not _NAME.fullmatch(queue.name):
        raise ValueError(f"queue {queue.name[:140]!r}: use 1-128 letters, digits, '_', '.' and '-', not these first")
    if queue.profile not in (profiles := get_args(ProfileName.__value__)):
        raise ValueError(f"queue {queue.name!r}: profile {queue.profile!r} is unknown; use {' or '.join(profiles)}")
    if queue.name in (known.name for known in QUEUES):
        raise ValueError(f"queue {queue.name!r} is declared already, with another profile")
    QUEUES.append(queue)


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
