"""A lease in Redis that decides which writer is active; it expires if its holder dies."""

import secrets
from datetime import timedelta
from typing import Any

from redis import Redis

from taskyard.broker.scripts.runner import ALLOW_OOM

# KEYS[1] string: the holder's token. ARGV[1]: our token. ARGV[2]: length, milliseconds. Returns 1 when we hold it.
HOLD = f"""{ALLOW_OOM}
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS[1] string: the holder's token. ARGV[1]: our token. Returns 1 when we held it.
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class WriterLease:
    """A lease on one key."""

    def __init__(self, client: Redis, key: str, length: timedelta, token: str | None = None) -> None:
        """
        Make a lease without taking it.

        Args:
            client: A connection to Redis.
            key: The lease's key.
            length: Well above the time between two renewals.
            token: Of a lease shared with another process; None makes a new one.
        """
        self._client: Any = client
        self._key = key
        self._length_ms = int(length / timedelta(milliseconds=1))
        self.token = token or secrets.token_hex(16)

    def hold(self) -> bool:
        """Take or renew the lease; False: another writer holds it."""
        return bool(self._client.eval(HOLD, 1, self._key, self.token, self._length_ms))

    def release(self) -> None:
        """Release the lease if it is ours."""
        self._client.eval(RELEASE, 1, self._key, self.token)
