"""Every verb of the command line, whatever it is: bad input, confirmation, JSON, unknown ids."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import click
import pytest
from sqlmodel import select

from taskyard.cli.commands import LazyCommand
from taskyard.cli.kit.id_prefixes import IdParam, TextIdParam
from taskyard.database.engine import open_session
from taskyard.history.operator_log import Operation
from tests.cli.conftest import Command
from tests.commands import OUR_COMMANDS, command_of

ENDLESS = {("audit", "write"), ("jobs", "tail"), ("up",)}
READ_ONLY = {
    *("ls", "show", "logs", "explain", "lost", "peek", "preview", "stats", "export", "current", "history"),
    *("profiles", "report", "drifts", "status", "conflicts", "refusals", "disputes", "tail", "metrics", "doctor"),
}
WITHOUT_REASON = {
    ("up",): "starts processes, and ends with them",
    ("audit", "write"): "a process that runs until it is stopped",
    ("webhooks", "new-key"): "prints a key and stores nothing",
}
WHOLE_IDS = (
    ("ls", "user_id"),  # of jobs: whose runs, a name of the app's
    ("tail", "user_id"),
    ("lost", "user_id"),
    ("close-lost", "user_id"),
    ("export", "user_id"),
    ("new-key", "key_id"),  # the name of what is made
    ("run", "market_id"),  # of recon: another domain's, looked up as it is
    ("drifts", "market_id"),
)
NEVER_MISSING = {  # their argument is free text, a file's name, or a new name
    *(("webhooks", "endpoints", "add"), ("schedules", "add"), ("schedules", "preview"), ("backups", "verify")),
    *(("dlq", "redrive"), ("dlq", "discard"), ("dlq", "operations"), ("webhooks", "redeliver"), ("recon", "report")),
    *(("markets", "status"), ("recon", "run")),
}


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    def walk(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
        if isinstance(command, LazyCommand):
            context = command.make_context(command.name, [])
            yield words, context.command
        elif isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk((*words, name), child)
        else:
            yield words, command

    for entry in OUR_COMMANDS:
        yield from walk((entry,), command_of(entry))


LEAVES = dict(leaves())


def ids_of(leaf: tuple[str, ...]) -> str:
    return " ".join(leaf)


def having(option: str) -> list[tuple[str, ...]]:
    return [words for words, leaf in LEAVES.items() if any(option in param.opts for param in leaf.params)]


def filled(words: tuple[str, ...]) -> list[str]:
    """Well-formed values for all that a verb asks for; none of them names something that exists."""
    values: list[str] = []
    for param in LEAVES[words].params:
        if isinstance(param, click.Argument) and (param.required or words[-1] in {"operations", "redeliver"}):
            values.append(value_for(param))
        elif isinstance(param, click.Option) and param.required:
            values += [param.opts[0], value_for(param)]
    if words == ("schedules", "preview"):
        values = ["--every", "5m"]
    if words == ("webhooks", "endpoints", "edit"):
        values += ["--rate", "5"]
    if words == ("jobs", "ls"):
        values += ["--limit", "5"]
    return values


def value_for(param: click.Parameter) -> str:
    if isinstance(param.type, IdParam):
        return str(uuid4())
    if isinstance(param.type, click.Choice):
        return str(param.type.choices[0])
    if param.type.name == "queue":
        return "celery"
    if isinstance(param.type, click.types.IntParamType):
        return "1"
    return "https://example.com/nobody" if param.name == "url" else "nobody"


@pytest.fixture
def run(command: Command) -> Any:
    """Run a verb by its words."""
    return lambda words, *more: command(words[0], *words[1:], *more)


pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def operations() -> int:
    with open_session() as session:
        return len(session.exec(select(Operation)).all())


@pytest.mark.parametrize("words", LEAVES, ids=ids_of)
def test_an_unknown_option_is_one_line_and_code_2(run: Any, words: tuple[str, ...]) -> None:
    ended = run(words, *filled(words), "--no-such-option")
    assert (ended.exit_code, ended.stdout, len(ended.stderr.strip().splitlines())) == (2, "", 1), ended.output


@pytest.mark.parametrize("words", having("--dry-run"), ids=ids_of)
def test_a_destructive_verb_that_was_not_confirmed_does_nothing(run: Any, words: tuple[str, ...]) -> None:
    all_of_them = ["--failed", "--all"] if words == ("webhooks", "redeliver") else filled(words)
    ended = run(words, *all_of_them)
    assert ended.exit_code == 2, ended.output
    assert len(ended.stderr.strip().splitlines()) == 1
    assert operations() == 0


@pytest.mark.parametrize("words", having("--since"), ids=ids_of)
def test_a_date_that_is_none_is_code_2(run: Any, words: tuple[str, ...]) -> None:
    ended = run(words, *filled(words), "--since", "yesterday-ish")
    assert (ended.exit_code, "is not a time" in ended.stderr) == (2, True), ended.output


@pytest.mark.parametrize("words", having("--limit"), ids=ids_of)
def test_a_page_without_rows_is_code_2(run: Any, words: tuple[str, ...]) -> None:
    assert run(words, *filled(words), "--limit", "0").exit_code == 2


@pytest.mark.usefixtures("database")  # as all tests of this file
def test_every_verb_that_ends_speaks_json() -> None:
    assert set(LEAVES) - set(having("--json")) - ENDLESS == {
        *(("audit", "export"), ("dlq", "export")),  # JSON lines as it is; their tests read them
        ("backups", "metrics"),  # Prometheus text
    }


@pytest.mark.usefixtures("database")  # as all tests of this file
def test_every_verb_that_changes_something_takes_a_reason_and_yes() -> None:
    """A verb that is not known to read only must: a script passes both without looking which verb it is."""
    changing = {words for words in LEAVES if words[-1] not in READ_ONLY}
    assert changing - set(having("--reason")) == WITHOUT_REASON.keys()
    assert changing - set(having("--yes")) == WITHOUT_REASON.keys()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("words", LEAVES, ids=ids_of)
def test_every_id_may_be_shortened(words: tuple[str, ...]) -> None:
    named = [param for param in LEAVES[words].params if str(param.name).endswith(("_id", "ids"))]
    whole = {(words[-1], param.name) for param in named if not isinstance(param.type, IdParam | TextIdParam)}
    assert whole <= set(WHOLE_IDS)


@pytest.mark.parametrize("words", [words for words in having("--json") if words not in ENDLESS], ids=ids_of)
def test_json_is_json_and_an_unknown_id_is_code_3(run: Any, words: tuple[str, ...]) -> None:
    more = ["--yes", "--reason", "r"] if words in having("--dry-run") else []
    more += ["--since", "2h"] if words == ("webhooks", "recover") else []
    more += ["--wait", "0"] if words in having("--wait") else []
    more += ["--yes"] if words in having("--yes") and "--yes" not in more else []
    ended = run(words, *filled(words), *more, "--json")
    if ended.stdout.strip():
        json.loads(ended.stdout)
    assert ended.exit_code in {0, 1, 2, 3, 4}
    assert "Traceback" not in ended.output
    assert len(ended.stderr.strip().splitlines()) <= 1 or ended.exit_code == 0, ended.stderr
    arguments = [p for p in LEAVES[words].params if isinstance(p, click.Argument) and p.required]
    if any(p.type.name != "queue" for p in arguments) and words not in NEVER_MISSING:  # `filled` names a real queue
        assert ended.exit_code == 3, (words, ended.output)


def test_every_change_of_webhooks_is_in_the_operator_log(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskyard.settings.loading import current_settings  # noqa: PLC0415 - forgotten after the key is set
    from taskyard.webhooks.signing.key_vault import new_master_key  # noqa: PLC0415 - as above

    monkeypatch.setenv("WEBHOOK_SECRET_KEYS", new_master_key("test").reveal())
    current_settings.cache_clear()
    added = json.loads(run(("webhooks", "endpoints", "add"), "https://example.com/x", "--event", "*", "--json").stdout)
    endpoint = added["id"]
    for words in (
        ("webhooks", "endpoints", "disable", endpoint, "--yes", "--reason", "moved"),
        ("webhooks", "endpoints", "enable", endpoint, "--reason", "back"),
        ("webhooks", "rotate-secret", endpoint, "--reason", "leaked"),
        ("webhooks", "recover", endpoint, "--since", "2h", "--yes", "--reason", "outage"),
        ("webhooks", "redeliver", "--failed", "--endpoint", endpoint, "--yes", "--reason", "outage"),
        ("webhooks", "endpoints", "rm", endpoint, "--yes", "--reason", "gone"),
    ):
        ended = run(words)
        assert ended.exit_code == 0, (words, ended.output)
    logged = json.loads(run(("audit", "ls", "--verb", "webhooks", "--json")).stdout)["items"]
    assert [(row["verb"], row["reason"]) for row in reversed(logged)] == [
        ("webhooks endpoints add", None),
        ("webhooks endpoints disable", "moved"),
        ("webhooks endpoints enable", "back"),
        ("webhooks rotate-secret", "leaked"),
        ("webhooks recover", "outage"),
        ("webhooks redeliver", "outage"),
        ("webhooks endpoints rm", "gone"),
    ]
    assert added["secret"] not in json.dumps(logged)
