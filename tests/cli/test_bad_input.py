"""What a person mistypes at three in the morning is refused with one line and code 2, and no terminal obeys it."""

import json
import socket
import threading
from contextlib import suppress
from typing import Any, Self

import pytest

from taskyard.cli.kit.common_options import ReasonParam
from taskyard.settings.loading import current_settings
from tests.cli.test_every_verb import LEAVES, filled, having, ids_of, operations
from tests.fixtures.applications import Command

ID = "0f6ff0f6-0000-4000-8000-000000000000"
ESCAPES = "\x1b[2J\x9b2J\u202e"

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("jobs", "show", "a\0b"), "contains a NUL"),
        (("jobs", "ls", "--task", "\udcff"), "not UTF-8"),
        (("queues", "pause", "celery", "--reason", "a\0b"), "contains a NUL"),
        (("queues", "limit", "celery", "--concurrency", "1" * 5000), "is not a limit"),
        (("queues", "promote", "x" * 300), "too long for a name or id"),
        (("schedules", "add", "n", "--every", "5m", "--task", "audit.cleanup", "--priority", "²"), "use high, normal"),
        (("schedules", "preview", "--every", "5m", "--priority", "urgent"), "use high, normal"),
        (("schedules", "preview", "--every", "5m", "--misfire-limit", "-1"), "from 1 to 100"),
        (("schedules", "preview", "--every", "5m", "--args", "[" * 100_000), "nested too deeply"),
        (("schedules", "preview", "--every", "5m", "--start", "1" * 20), "use an ISO 8601 moment"),
        (("dlq", "redrive", ID, "--yes", "--payload", '{"a": NaN}'), "NaN is not valid JSON"),
        (("dlq", "redrive", ID, "--yes", "--payload", '{"a": 1, "a": 2}'), "'a' is a duplicate key"),
        (("dlq", "discard", "--since", "1767225600000", "--yes", "--reason", "r"), "is not a time"),
    ],
)
def test_a_value_without_meaning_is_one_line_and_code_2(command: Command, words: tuple[str, ...], says: str) -> None:
    ended = command(*words)
    assert (ended.exit_code, len(ended.stderr.splitlines()), says in ended.stderr) == (2, 1, True), ended.output
    assert operations() == 0


@pytest.mark.parametrize("words", having("--wait"), ids=ids_of)
def test_nobody_waits_for_nan_seconds(command: Command, words: tuple[str, ...]) -> None:
    """A range lets NaN pass, and no moment comes after it."""
    ended = command(*words, *filled(words), "--wait", "nan")
    assert (ended.exit_code, "not a number of seconds" in ended.stderr, operations()) == (2, True, 0), ended.output


def test_a_reason_that_could_not_be_kept_whole_is_refused(command: Command) -> None:
    """PostgreSQL refuses it in the middle of the change, and what is urgent was done all the same."""
    types = {
        words: [param.type for param in LEAVES[words].params if "--reason" in param.opts]
        for words in having("--reason")
    }
    assert [words for words, (kind,) in types.items() if not isinstance(kind, ReasonParam)] == []
    ended = command("queues", "pause", "celery", "--reason", "r" * 501)
    assert (ended.exit_code, "at most 500" in ended.stderr, operations()) == (2, True, 0), ended.output


@pytest.mark.parametrize(
    "words",
    [
        ("jobs", "show", f"{ESCAPES}\nnext"),
        ("jobs", "explain", ESCAPES),
        ("queues", "limit", "celery", "--rate", "5/s"),
        ("queues", "ls"),
        ("queues", "ls", "--json"),
    ],
)
def test_a_terminal_obeys_nothing_that_is_printed(command: Command, words: tuple[str, ...]) -> None:
    command("queues", "pause", "celery", "--reason", f"because {ESCAPES}")
    ended = command(*words)
    shown = ended.stdout + ended.stderr
    assert all(character.isprintable() or character == "\n" for character in shown), repr(shown)
    assert len(ended.stderr.splitlines()) <= 1


def test_an_error_does_not_fill_the_terminal(command: Command) -> None:
    ended = command("jobs", "ls", "--limit", "x" * 100_000)
    assert ended.exit_code == 2
    assert len(ended.stderr) < 3000
    assert "not a valid integer" in ended.stderr


def test_json_keeps_what_a_terminal_would_obey(command: Command) -> None:
    command("queues", "pause", "celery", "--reason", ESCAPES)
    found: Any = json.loads(command("audit", "ls", "--json").stdout)
    assert found["items"][0]["reason"] == ESCAPES


def test_a_server_that_loads_its_data_is_named_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the configuration, and passes."""
    with LoadingServer() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        current_settings.cache_clear()
        ended = command("queues", "peek", "celery")
    assert (ended.exit_code, "loading its data" in ended.stderr, "REDIS_URL" in ended.stderr) == (1, True, False)


def test_only_what_could_be_saved_says_that_nothing_was(command: Command) -> None:
    previewed = command("schedules", "preview", "--cron", "61 * * * *")
    added = command("schedules", "add", "n", "--task", "audit.cleanup", "--cron", "61 * * * *", "--yes")
    assert (previewed.exit_code, "nothing was saved" in previewed.stderr) == (2, False)
    assert (added.exit_code, "nothing was saved" in added.stderr) == (2, True)


class LoadingServer:
    """Answers each command as a Redis does that reads its data after a start."""

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._socket.accept()[:1], daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(65_536):
                for _ in range(max(data.count(b"*"), 1)):
                    connection.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")
