"""What the users of a broker need: the rules of each role, and which of them the current user lacks."""

from typing import Any, Literal, NamedTuple

import redis

from taskyard.broker.scripts.runner import Keyspace, run_script
from taskyard.broker.transport.channel import channel_prefix

type Role = Literal["producer", "worker", "operator"]

_CONNECTION = "ping hello select"
_PRODUCER = (
    "eval evalsha multi exec time exists del expire pexpire get set mget incr hget hset hmget hdel sadd srem smembers "
    "zadd zrem zrange zscore zcard xadd publish subscribe unsubscribe"
)
_WORKER = (
    f"{_PRODUCER} setex hincrby hgetall pttl type scard zcount zrank zrangebyscore zremrangebyscore zpopmin bzpopmin "
    "llen lrange rpush lpush ltrim xlen xrange xtrim xgroup|create xreadgroup xack xpending xinfo|stream "
    "psubscribe punsubscribe"
)
_COMMANDS: dict[Role, str] = {"producer": _PRODUCER, "worker": _WORKER, "operator": f"{_WORKER} info"}
LISTENED = ("celery.pidbox", "celeryev/worker.*", "celeryev/*")  # remote control, other workers, all events
REMEDY = "docs/deployment.md, Users of the broker, has the rules"
SHOWN = 5  # rights in one line
OPTIONAL = frozenset(("info",))  # what `doctor` can do without
_WITHOUT_KEYS = frozenset((*_CONNECTION.split(), "multi", "exec", "time", "info", "unsubscribe", "punsubscribe"))


class Need(NamedTuple):
    """One command on one of our keys or channels."""

    command: str
    words: tuple[str, ...]  # as the server is asked

    def __str__(self) -> str:
        target = next((word for word in self.words[1:] if ":" in word), None)
        return self.command if target is None else f"{self.command} on {target}"


def channels(prefix: str, database: int) -> list[str]:
    """Return the patterns of all channels; those to which `PSUBSCRIBE` listens are allowed only word for word."""
    ours = channel_prefix(prefix, database)
    return [f"{ours}*", *(f"{ours}{name}" for name in LISTENED), f"{prefix}celery-task-meta-*"]


def acl_rules(role: Role, prefix: str = "taskyard:", database: int = 0) -> str:
    """
    Return the rules of `ACL SETUSER` for a role, without name and password.

    >>> acl_rules("producer").split()[:3]
    ['resetkeys', '~taskyard:*', 'resetchannels']
    """
    named = channels(prefix, database)
    commands = f"{_CONNECTION} {_COMMANDS[role]}".split()
    allowed = [f"&{name}" for name in named] + ["-@all"] + [f"+{command}" for command in commands]
    return " ".join(["resetkeys", f"~{prefix}*", "resetchannels", *allowed])


def missing_rights(client: redis.Redis, prefix: str, database: int, role: Role) -> list[Need]:
    """
    Return what the user of this client may not do, of all that the role needs; [] where the server cannot be asked.

    Raises:
        redis.NoPermissionError: It may not even ask, which takes EVAL.
        redis.RedisError: The server does not answer.
    """
    needs = [
        need for name in _COMMANDS[role].split() if name not in OPTIONAL for need in _needs(name, prefix, database)
    ]
    words: list[str | int] = []
    for need in needs:
        words += (len(need.words), *need.words)
    lacking: Any = run_script(client, Keyspace(prefix, writes_events=False), "rights", *words)
    return [needs[index] for index in lacking]


def rights_problem(client: redis.Redis, prefix: str, role: Role) -> str | None:
    """
    Say in one line which user lacks which rights; None when nothing is missing, or the server cannot be asked.

    Raises:
        redis.RedisError: The server does not answer.
    """
    options = client.connection_pool.connection_kwargs
    user = options.get("username") or "default"
    try:
        lacking = missing_rights(client, prefix, int(options.get("db") or 0), role)
    except redis.exceptions.NoPermissionError as error:
        return f"the broker refuses its user {user!r}: {error}; {REMEDY}"
    if not lacking:
        return None
    shown = ", ".join(str(need) for need in lacking[:SHOWN]) + (
        f" and {len(lacking) - SHOWN} more" * (len(lacking) > SHOWN)
    )
    return f"the broker user {user!r} lacks rights of the role {role}: {shown}; {REMEDY}"


def _needs(command: str, prefix: str, database: int) -> list[Need]:
    """A command on a key and on the channels that the role uses it for."""
    name, _, part = command.partition("|")
    words = (name, part) if part else (name,)
    ours, key, result = channel_prefix(prefix, database), f"{prefix}probe", f"{prefix}celery-task-meta-probe"
    targets: dict[str, list[tuple[str, ...]]] = {
        "eval": [("", "1", key)],
        "evalsha": [("", "1", key)],
        "psubscribe": [(f"{ours}{name}",) for name in LISTENED],
        "subscribe": [(result,)],
        "publish": [(f"{ours}celery.pidbox", ""), (result, "")],
        "xreadgroup": [("GROUP", "g", "c", "STREAMS", key, ">")],
    }
    default: list[tuple[str, ...]] = [()] if command in _WITHOUT_KEYS else [(key,)]
    return [Need(command, (*words, *more)) for more in targets.get(command, default)]
