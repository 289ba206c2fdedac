"""One Redis client per process for what is not Celery's own traffic: events, limits, small state."""

import os
from functools import lru_cache

from redis import Redis


@lru_cache(maxsize=4)
def shared_client(url: str) -> "Redis":
    """Return this process's client for the URL; redis-py pools its connections and is thread-safe."""
    return Redis.from_url(url, socket_timeout=30, socket_connect_timeout=5, health_check_interval=10)


os.register_at_fork(after_in_child=shared_client.cache_clear)
