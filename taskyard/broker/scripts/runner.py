"""Run the Lua scripts: read once from this folder, called by hash, sent whole when the server has forgotten them."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Literal, NamedTuple

import redis

FOLDER = Path(__file__).parent
EVEN_WHEN_FULL = "#!lua flags=allow-oom\n"  # the first line of a script that a server runs beyond its `maxmemory`

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
    "promote",
    "put",
    "remove",
    "renew",
    "requeue",
    "take",
]
type Word = str | bytes | int | float


class Script(NamedTuple):
    """One script with the shared first part before it."""

    text: str
    sha: str  # how the server knows it


class Call(NamedTuple):
    """One script call that is ready to be sent."""

    name: ScriptName
    words: tuple[Word, ...]  # ARGV[3...]


class Keyspace(NamedTuple):
    """What every script is told first."""

    prefix: str
    writes_events: bool  # to the stream that the audit reads


@cache
def script(name: ScriptName) -> Script:
    """
    Read a script; each is read once per process.

    A full server refuses `put` whole; all others need next to nothing, and are how it empties.
    """
    first_line = "" if name == "put" else EVEN_WHEN_FULL
    text = first_line + (FOLDER / "prelude.lua").read_text() + (FOLDER / f"{name}.lua").read_text()
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def evalsha_words(space: Keyspace, call: Call) -> tuple[Word, ...]:
    """The words after `EVALSHA` (or, with the text in place of the hash, after `EVAL`)."""
    return (script(call.name).sha, 1, space.prefix, space.prefix, int(space.writes_events), *call.words)


def run(client: redis.Redis, space: Keyspace, name: ScriptName, *words: Word) -> Any:
    """
    Run one script.

    Raises:
        redis.RedisError: As the client does.
    """
    sent = evalsha_words(space, Call(name, words))
    execute: Any = client.execute_command
    try:
        return execute("EVALSHA", *sent)
    except redis.exceptions.NoScriptError:
        return execute("EVAL", script(name).text, *sent[1:])


class Started:
    """One script call that the server works on while this process goes on; it holds a connection until it is ended."""

    def __init__(self, client: Any, space: Keyspace, call: Call) -> None:
        """
        Send the call.

        Raises:
            redis.RedisError: It could not be sent whole.
        """
        self._client, self._space, self._call = client, space, call
        self._pool = client.connection_pool
        self._connection = self._pool.get_connection()
        try:
            words = ("EVALSHA", *evalsha_words(space, call))
            self._connection.send_packed_command(self._connection.pack_command(*words))
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
            return run(self._client, self._space, self._call.name, *self._call.words)
        except BaseException:
            self._abandon()
            raise
        self._pool.release(self._connection)
        return answer

    def _abandon(self) -> None:
        self._connection.disconnect()  # what is still to be read belongs to nobody
        self._pool.release(self._connection)


def run_all(client: redis.Redis, space: Keyspace, calls: Sequence[Call]) -> list[Any]:
    """
    Run scripts in their order with one round trip; not a transaction, and sent once only.

    Raises:
        redis.RedisError: The first error of a call, or of the connection; earlier calls may have taken effect.
    """
    answers = _exchange(client.connection_pool, [("EVALSHA", *evalsha_words(space, call)) for call in calls])
    for index, (call, answer) in enumerate(zip(calls, answers, strict=True)):
        if isinstance(answer, redis.exceptions.NoScriptError):
            answers[index] = run(client, space, call.name, *call.words)
        elif isinstance(answer, Exception):
            raise answer
    return answers


def _exchange(pool: Any, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
    """As a pipeline of the client, at a fraction of its cost: what it does around each command is not needed here."""
    connection = pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        return [_answer_or_error(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # what is still to be read belongs to nobody
        raise
    finally:
        pool.release(connection)


def _answer_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
