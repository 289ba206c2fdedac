"""
Treat a server that answers and refuses to work as a lost connection.

A master that became a replica, a full disk, too few replicas: Celery takes such answers for faults of the program and
ends the worker, and a client would stay with the old master for ever. With a lost connection all of them know what to
do: reconnect by its name, and continue when the server works again. A server without memory is no such
case: what it refuses are new messages only.
"""

import re
from typing import Any

import redis
from redis import exceptions

from taskyard.broker.scripts.runner import ALLOW_OOM

# KEYS[1] hash: id and name of the platform that owns the keys
# Returns these two, and the server's seconds and microseconds.
# A server that may not write refuses it, though it writes nothing.
PROBE = (
    f"{ALLOW_OOM}local owner, time = redis.call('HMGET', KEYS[1], 'id', 'name'), redis.call('TIME') "
    "return { owner[1], owner[2], time[1], time[2] }"
)
_KINDS = (
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.MovedError,
)
ACL_IN_SCRIPT = "ACL failure in script"
_WORDS = re.compile(r"(NOREPLICAS|MISCONF|UNBLOCKED|BUSY) ")


class ServerRefusedError(redis.ConnectionError):
    """The server answers, and refuses to work."""


class ReconnectOnRefusal:
    """Mixin for redis-py connections: a refusal closes the connection."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        """
        Read one answer.

        Raises:
            RefusedError: The server refuses to work; the connection is closed.
            redis.ConnectionError: It is lost.
            redis.ResponseError: Any other error that it answered.
        """
        connection: Any = super()
        try:
            return connection.read_response(*args, **options)
        except redis.ResponseError as error:
            if str(error).startswith(ACL_IN_SCRIPT):  # no fault of the item that the script is about
                raise exceptions.NoPermissionError(str(error).partition(" script: ")[0]) from error
            if not isinstance(error, _KINDS) and not _WORDS.match(str(error)):
                raise
            connection.disconnect()
            raise ServerRefusedError(f"the server refuses to work: {error}") from error


def with_reconnect_on_refusal(connection_class: type) -> type:
    """Return a new class whose connections close on a refusal; not cached, since it may reference a channel."""
    if issubclass(connection_class, ReconnectOnRefusal):
        return connection_class
    return type(connection_class.__name__, (ReconnectOnRefusal, connection_class), {})


def reconnect_on_refusal[P: redis.ConnectionPool](pool: P) -> P:
    """Make every new connection of the pool disconnect on a refusal."""
    pool.connection_class = with_reconnect_on_refusal(pool.connection_class)
    return pool
