"""One Redis client per process for everything but Celery's own traffic: events, limits, small state."""

import os
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis, Sentinel

from taskyard.broker.scripts.failover import reconnect_on_refusal
from taskyard.broker.transport.options import read_url


@lru_cache(maxsize=4)
def shared_client(url: str) -> "Redis":
    """Return this process's client for the URL; redis-py pools its connections and is thread-safe."""
    return open_client(url, socket_timeout=30, socket_connect_timeout=5, health_check_interval=10)


def open_client(url: str, **options: Any) -> "Redis":
    """
    Open a client for a redis, rediss, unix or sentinel URL, with redis-py's connection options.

    Behind sentinels each new connection goes to the master they name at that moment. User and password of the URL are
    the master's, as for the transport.

    Raises:
        ValueError: The URL names several servers that are no sentinels.
    """
    plain, sentinel = read_url(url)
    if not sentinel:
        client = Redis.from_url(url, **options)
        reconnect_on_refusal(client.connection_pool)
        return client
    parts = urlsplit(plain)
    given = {"username": parts.username, "password": parts.password}
    secrets: dict[str, Any] = {name: unquote(value) for name, value in given.items() if value}
    asking: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("socket_")}
    asking["retry"] = None  # ask the next sentinel instead
    make: Any = Sentinel
    number = int(parts.path.strip("/") or 0)
    manager = make(sentinel["sentinels"], sentinel_kwargs=asking, db=number, **secrets, **options)
    master: Redis = manager.master_for(sentinel["master_name"])
    reconnect_on_refusal(master.connection_pool)
    return master


os.register_at_fork(after_in_child=shared_client.cache_clear)
