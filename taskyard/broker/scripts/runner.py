"""Run the Lua scripts: read once from this folder, called by hash, sent whole when the server has forgotten them."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Literal, NamedTuple

import redis

from taskyard.broker.scripts.shared_names import lua_names

FOLDER = Path(__file__).parent
ALLOW_OOM = "#!lua flags=allow-oom\n"  # the first line of a script that a server runs beyond its `maxmemory`

type ScriptName = Literal[
    "ack",
    "bury",
    "cancel",
    "counts",
    "drain",
    "explain",
    "limits",
    "move",
    "note",
    "put",
    "remove",
    "renew",
    "requeue",
    "rights",
    "take",
]
type ScriptArgument = str | bytes | int | float


class LuaScript(NamedTuple):
    """One script with the shared first part before it."""

    text: str
    sha: str  # how the server knows it


class ScriptCall(NamedTuple):
    """One script call that is ready to be sent."""

    name: ScriptName
    arguments: tuple[ScriptArgument, ...]  # ARGV[3...]


class Keyspace(NamedTuple):
    """The first arguments of every script."""

    prefix: str
    writes_events: bool  # to the stream that the audit reads

    def message(self, tag: str) -> str:
        """Return the key of a message; what it holds is listed at the head of prelude.lua."""
        return f"{self.prefix}message:{tag}"


@cache
def script(name: ScriptName) -> LuaScript:
    """
    Read a script; each is read once per process.

    A full server refuses `put` whole; all others need next to nothing, and are how it empties.
    """
    first_line = "#!lua\n" if name == "put" else ALLOW_OOM
    prelude = lua_names() + (FOLDER / "prelude.lua").read_text()
    text = first_line + prelude + (FOLDER / f"{name}.lua").read_text()
    return LuaScript(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def evalsha_arguments(space: Keyspace, call: ScriptCall) -> tuple[ScriptArgument, ...]:
    """The arguments after `EVALSHA` (or, with the text in place of the hash, after `EVAL`)."""
    return (script(call.name).sha, 1, space.prefix, space.prefix, int(space.writes_events), *call.arguments)


def run_script(client: redis.Redis, space: Keyspace, name: ScriptName, *arguments: ScriptArgument) -> Any:
    """
    Run one script.

    Raises:
        redis.RedisError: As the client does.
    """
    sent = evalsha_arguments(space, ScriptCall(name, arguments))
    execute: Any = client.execute_command
    try:
        return execute("EVALSHA", *sent)
    except redis.exceptions.NoScriptError:
        return execute("EVAL", script(name).text, *sent[1:])


class PendingCall:
    """A script call in flight; it occupies a connection until its answer is read."""

    def __init__(self, client: Any, space: Keyspace, call: ScriptCall) -> None:
        """
        Send the call.

        Raises:
            redis.RedisError: It could not be sent whole.
        """
        self._client, self._space, self._call = client, space, call
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()
        try:
            arguments = ("EVALSHA", *evalsha_arguments(space, call))
            self._connection.send_packed_command(self._connection.pack_command(*arguments))
        except BaseException:
            self._abandon()
            raise

    def answer(self) -> Any:
        """
        Wait for the answer; to be called once.

        Raises:
            redis.RedisError: As the client does; the call may have taken effect.
        """
        try:
            answer = self._connection.read_response()
        except redis.exceptions.NoScriptError:
            self._pool.release(self._connection)
            return run_script(self._client, self._space, self._call.name, *self._call.arguments)
        except BaseException:
            self._abandon()
            raise
        self._pool.release(self._connection)
        return answer

    def _abandon(self) -> None:
        self._connection.disconnect()  # an unread answer must not reach the next user
        self._pool.release(self._connection)


def run_scripts(client: redis.Redis, space: Keyspace, calls: Sequence[ScriptCall]) -> list[Any]:
    """
    Run scripts in their order with one round trip; not a transaction, and sent once only.

    Raises:
        redis.RedisError: The first error of a call, or of the connection; earlier calls may have taken effect.
    """
    answers = _exchange(client.connection_pool, [("EVALSHA", *evalsha_arguments(space, call)) for call in calls])
    for index, (call, answer) in enumerate(zip(calls, answers, strict=True)):
        if isinstance(answer, redis.exceptions.NoScriptError):
            answers[index] = run_script(client, space, call.name, *call.arguments)
        elif isinstance(answer, Exception):
            raise answer
    return answers


def _exchange(pool: Any, commands: Sequence[tuple[ScriptArgument, ...]]) -> list[Any]:
    """As a pipeline of the client, at a fraction of its cost: what it does around each command is not needed here."""
    connection = pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_answer_or_error(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # an unread answer must not reach the next user
        raise
    finally:
        pool.release(connection)


def _answer_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
