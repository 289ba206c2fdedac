"""Leader election: a lease in the broker with a fencing token that only grows."""

import os
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from redis import Redis

from taskyard.broker.scripts.runner import ALLOW_OOM
from taskyard.broker.scripts.text_script import TextScript

# KEYS[1] lease (hash: owner, token)   KEYS[2] fence (string: the highest token ever given)
# ARGV[1] owner   ARGV[2] length of the lease, milliseconds   ARGV[3] the token must be higher than this
# Returns: the caller's token or 0, the owner, the server's seconds and microseconds.
_HOLD = (
    ALLOW_OOM
    + """
local clock = redis.call('TIME')
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then
  return {0, owner, clock[1], clock[2]}
end
local token = owner and tonumber(redis.call('HGET', KEYS[1], 'token')) or 0
if token <= tonumber(ARGV[3]) then
  local highest = tonumber(redis.call('GET', KEYS[2]) or '0')
  token = math.max(highest, tonumber(ARGV[3])) + 1
  redis.call('SET', KEYS[2], string.format('%.0f', token))
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', string.format('%.0f', token))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {token, ARGV[1], clock[1], clock[2]}
"""
)

# KEYS[1] lease   ARGV[1] owner.   Returns 1 when it was the caller's and is gone now, else 0.
_RELEASE = """
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Leader:
    """The current leader, as seen by an observer."""

    owner: str  # host:pid:random
    token: int
    left: timedelta  # until the lease ends, if it is not renewed


class LeaderLease:
    """
    This process's hold on the leadership.

    `token` is 0 while another process leads. The broker's clock decides about the end of a lease; the holder counts by
    its own monotonic clock from before it asked, so it stops believing earlier than anybody else may start.
    """

    def __init__(self, client: Redis, prefix: str, length: timedelta) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.token = 0
        self.server_time: datetime | None = None
        self._length = length
        self._held_until = 0.0  # monotonic seconds
        self._asked_at = 0.0
        self._client = client
        self._keys = _keys(prefix)
        self._hold = TextScript(client, _HOLD)
        self._release = TextScript(client, _RELEASE)

    def hold(self, above: int = 0) -> int:
        """
        Take the lease if it is free or renew it if it is ours; return the token, 0 if another process holds it.

        A broker that lost its data would start again with low tokens: `above` is the highest token that the database
        has seen, and the new one is higher.

        Raises:
            RedisError: The broker does not answer; a held lease stays valid until it expires.
        """
        asked_at = time.monotonic()
        milliseconds = int(self._length / timedelta(milliseconds=1))
        answer: Any = self._hold(keys=self._keys, args=[self.owner, milliseconds, above])
        self.token = int(answer[0])
        self.server_time = datetime.fromtimestamp(int(answer[2]), UTC) + timedelta(microseconds=int(answer[3]))
        self._asked_at = asked_at
        self._held_until = asked_at + self._length.total_seconds() if self.token else 0.0
        return self.token

    def is_held(self) -> bool:
        """Whether the lease cannot have expired yet."""
        return time.monotonic() < self._held_until

    def age(self) -> timedelta:
        """Return the time since the last successful renewal or check."""
        return timedelta(seconds=time.monotonic() - self._asked_at)

    def release(self) -> None:
        """
        Release the lease if it is ours, so that another process can lead at once.

        Raises:
            RedisError: The broker does not answer; the lease will expire.
        """
        self.token, self._held_until = 0, 0.0
        self._release(keys=self._keys[:1], args=[self.owner])


def current_leader(client: Redis, prefix: str) -> Leader | None:
    """
    Return the current leader; None: nobody leads.

    Raises:
        RedisError: The broker does not answer.
    """
    key = _keys(prefix)[0]
    fields: Any = client.hgetall(key)
    left: Any = client.pttl(key)
    named = {_text(name): _text(value) for name, value in fields.items()}
    if not named or left <= 0:
        return None
    return Leader(named["owner"], int(named["token"]), timedelta(milliseconds=left))


def _keys(prefix: str) -> list[str]:
    return [f"{prefix}{{beat}}:leader", f"{prefix}{{beat}}:fence"]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
