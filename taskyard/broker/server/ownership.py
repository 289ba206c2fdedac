"""Which platform the keys under a prefix belong to: two that share them would run each other's tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any

import click
from redis import Redis

from taskyard.broker.scripts.runner import ALLOW_OOM
from taskyard.broker.server.clock_check import warn_of_skew

# KEYS[1] <prefix>platform (hash: id, name)   ARGV[1] id   ARGV[2] name
# Returns the id and the name of the owner, who is the caller if there was none, and the server's seconds and
# microseconds. An owner's name is kept up to date.
_CLAIM = (
    ALLOW_OOM
    + """
local owner, clock = redis.call('HMGET', KEYS[1], 'id', 'name'), redis.call('TIME')
if owner[1] and (owner[1] ~= ARGV[1] or owner[2] == ARGV[2]) then return { owner[1], owner[2], clock[1], clock[2] } end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'name', ARGV[2])
return { ARGV[1], ARGV[2], clock[1], clock[2] }
"""
)


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform, as its processes and its broker know it."""

    id: str  # made with its schema
    name: str  # its app and its database, for people


class OtherPlatformError(click.ClickException, RuntimeError):
    """The keys under this prefix belong to another platform."""

    exit_code = 2

    def __init__(self, prefix: str, owner: Platform, own: Platform) -> None:
        """Say who they are, and what to do."""
        self.args = (prefix, owner, own)
        super().__init__(
            f"the keys under {prefix!r} in this broker belong to {owner.name}, not to {own.name}: give one of them a"
            " prefix of its own by TASKYARD_KEY_PREFIX, or, if the other is gone, run: celery -A ... db adopt-broker"
        )

    def __str__(self) -> str:
        """Return the text."""
        return self.message


_identify: list[Callable[[], Platform | None]] = []  # of this process; empty: an app that is not Taskyard's


def identify_by(identify: Callable[[], Platform | None]) -> None:
    """Let the connections of this process know whose it is; None as an answer: unknown, so nothing is refused."""
    _identify[:] = [identify]


def platform_key(prefix: str) -> str:
    """Return the key that holds the owner."""
    return f"{prefix}platform"


def claim(client: Redis, prefix: str, own: Platform) -> None:
    """
    Make the keys under a prefix this platform's, unless they are another's.

    Raises:
        OtherPlatformError: They are.
        redis.RedisError: As the client does.
    """
    execute: Any = client.eval
    asked_at = time()
    answer = execute(_CLAIM, 1, platform_key(prefix), own.id, own.name)
    warn_of_skew(int(answer[2]) + int(answer[3]) / 1_000_000, asked_at)
    _compare(prefix, platform(answer[:2]), own)


def adopt(client: Redis, prefix: str, own: Platform) -> None:
    """Make the keys under a prefix this platform's, whoever had them."""
    client.hset(platform_key(prefix), mapping={"id": own.id, "name": own.name})


def owner_of(client: Redis, prefix: str) -> Platform | None:
    """Return whose the keys under a prefix are; None: nobody's."""
    return platform(client.hmget(platform_key(prefix), ["id", "name"]))


def check_owner(prefix: str, owner: Platform | None) -> None:
    """
    Compare whose the keys under a prefix are with the platform of this process.

    Raises:
        OtherPlatformError: They are another's.
    """
    if owner is not None and _identify and (own := _identify[0]()) is not None:
        _compare(prefix, owner, own)


def platform(answer: Any) -> Platform | None:
    """Return the platform whose id and name the broker told; None: nobody's."""
    words = [word.decode(errors="replace") if isinstance(word, bytes) else word for word in answer]
    return Platform(words[0], words[1] or "a platform without a name") if words[0] else None


def _compare(prefix: str, owner: Platform | None, own: Platform) -> None:
    if owner is not None and owner.id != own.id:
        raise OtherPlatformError(prefix, owner, own)
