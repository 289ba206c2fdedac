"""`dlq`: what it prints, what it changes, and how it ends."""

import json
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import Session

from taskyard.database.columns import utc_now
from taskyard.database.engine import open_engine
from taskyard.database.paging import write_cursor
from taskyard.history.dead_letters import DeadLetterFilter, count_dead_letters
from taskyard.history.models import DeadLetter
from tests.cli.celery_command import CeleryCommand, ended
from tests.cli.conftest import Command
from tests.databases import Database
from tests.history import records_app  # noqa: F401 - declares the tasks
from tests.history.dead_letter_rows import put
from tests.servers import Server

LETTER_KEYS = {
    "id", "run_id", "attempt", "task", "queue", "reason", "error_type", "error_message", "error_signature", "traceback",
    "first_failed_at", "failed_at", "state", "redriven_run_id", "redrive_sent_at", "resolved_at", "resolved_by",
    "resolution", "operation_id", "flow", "step",
}  # fmt: skip
SECRET = "hunter2"


def letters(database: Database, count: int, **facts: Any) -> list[DeadLetter]:
    with database.session() as session:
        return [put(session, **facts) for _ in range(count)]


def open_letters(database: Database) -> int:
    with database.session() as session:
        return count_dead_letters(session, DeadLetterFilter())


def test_the_json_of_dlq_has_a_stable_schema_and_no_secret(command: Command, database: Database) -> None:
    headers = {"task": "records.greet", "kwargsrepr": f"{{'token': '{SECRET}'}}"}
    (letter,) = letters(database, 1, headers=headers)
    listed, shown = command("dlq", "ls", "--json"), command("dlq", "show", str(letter.id), "--json")

    assert set(json.loads(listed.stdout)) == {"items", "next"}
    assert all(set(item) == LETTER_KEYS for item in json.loads(listed.stdout)["items"])
    assert set(json.loads(shown.stdout)) == LETTER_KEYS | {"args", "body_bytes", "attempt_list"}
    assert json.loads(shown.stdout)["args"]["token"] == "***"
    for result in (listed, shown, command("dlq", "ls"), command("dlq", "show", str(letter.id))):
        assert SECRET not in result.output


@pytest.mark.parametrize(
    ("facts", "args"),
    [
        ({}, {"name": "Ada", "token": "***", "diary": None}),
        ({"task": "no.such.task"}, {"name": "***", "token": "***"}),
        ({"fields": {"name": 17, "token": SECRET}}, {"name": "***", "token": "***"}),
        ({"raw": f"garbage {SECRET}".encode()}, {}),
    ],
    ids=["known task", "unknown task", "unfit payload", "undecodable"],
)
def test_dlq_show_masks_what_may_be_secret(
    command: Command, database: Database, facts: dict[str, Any], args: dict[str, Any]
) -> None:
    (letter,) = letters(database, 1, **facts)
    result = command("dlq", "show", str(letter.id), "--json")

    assert json.loads(result.stdout)["args"] == args
    assert SECRET not in result.output


@pytest.mark.parametrize("verb", ["redrive", "discard"])
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "--yes"),
        (["--all"], "--yes"),
        (["--all", "--yes", "--dry-run"], "--yes"),
        (["--yes", "--reason", "r"], "nothing selected"),
        (["--all", "--yes", "--reason", "r", "--since", "tomorrow-ish"], "is not a time"),
        (["no-uuid", "--yes", "--reason", "r"], "no-uuid"),
        ([str(uuid4()), "--all", "--yes", "--reason", "r"], "cannot be combined"),
    ],
)
def test_a_verb_that_was_not_confirmed_or_understood_changes_nothing(
    command: Command, database: Database, verb: str, options: list[str], text: str
) -> None:
    letters(database, 1)
    result = command("dlq", verb, *options)

    assert result.exit_code == 2
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert open_letters(database) == 1


def test_a_discard_needs_a_reason(command: Command, database: Database) -> None:
    letters(database, 1)

    assert command("dlq", "discard", "--all", "--yes").exit_code == 2
    assert open_letters(database) == 1


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_a_dry_run_says_what_would_be_and_changes_nothing(command: Command, database: Database, verb: str) -> None:
    letters(database, 2)
    result = command("dlq", verb, "--all", "--dry-run", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["dry_run"] is True
    assert open_letters(database) == 2


def test_a_discard_by_filter_closes_what_matches(command: Command, database: Database) -> None:
    letters(database, 3, queue="old")
    letters(database, 2)
    result = command("dlq", "discard", "--queue", "old", "--yes", "--reason", "queue is gone")

    assert result.exit_code == 0
    assert "3 discarded, 0 failed" in result.stdout
    assert open_letters(database) == 2


@pytest.mark.parametrize("verb", ["redrive", "discard", "show"])
def test_an_unknown_letter_ends_with_code_3(command: Command, verb: str) -> None:
    options = [] if verb == "show" else ["--yes", "--reason", "r"]
    result = command("dlq", verb, str(uuid4()), *options)

    assert result.exit_code == 3
    assert len(result.stderr.strip().splitlines()) == 1


def test_causes_are_listed_and_redriven_by_their_signature(command: Command, database: Database) -> None:
    letters(database, 3, message="order 17 is gone")
    letters(database, 1, message="order 4 is gone")
    letters(database, 2, error="KeyError")
    frequent, rare = json.loads(command("dlq", "ls", "--group", "--json").stdout)["items"]

    assert (frequent["count"], rare["count"], rare["error_type"]) == (4, 2, "KeyError")
    assert "ValueError: order" in command("dlq", "ls", "--group").stdout
    assert command("dlq", "ls", "--group", "--after", write_cursor(utc_now(), "x")).exit_code == 2
    done = command("dlq", "redrive", "--signature", frequent["signature"], "--yes", "--json")
    assert len(json.loads(done.stdout)["redriven"]) == 4
    assert open_letters(database) == 2
    (logged,) = json.loads(command("audit", "ls", "--json").stdout)["items"]
    assert (logged["verb"], logged["count"], logged["filter"]["signature"]) == ("dlq redrive", 4, frequent["signature"])


def test_an_export_is_one_json_object_a_line_without_secrets(command: Command, database: Database) -> None:
    letters(database, 3)
    exported = command("dlq", "export", "--state", "any")

    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert all(set(line) == LETTER_KEYS | {"args", "attempt_list"} for line in lines)
    assert len(lines) == 3
    assert SECRET not in exported.output


def test_an_unknown_operation_is_code_3_and_a_missing_one_code_2(command: Command) -> None:
    assert command("dlq", "operations", str(uuid4())).exit_code == 3
    assert command("dlq", "operations", "--abort").exit_code == 2
    assert json.loads(command("dlq", "operations", "--json").stdout) == {"items": []}


def test_some_done_and_some_not_ends_with_code_4(command: Command, database: Database) -> None:
    (letter,) = letters(database, 1)
    result = command("dlq", "discard", str(letter.id), str(uuid4()), "--yes", "--reason", "r", "--json")

    assert result.exit_code == 4
    printed = json.loads(result.stdout)
    assert (len(printed["discarded"]), len(printed["failed"])) == (1, 1)


@pytest.mark.parametrize("payload", ["{", "[]", '"x"'])
def test_a_payload_that_is_no_object_is_refused(command: Command, database: Database, payload: str) -> None:
    (letter,) = letters(database, 1)
    result = command("dlq", "redrive", str(letter.id), "--payload", payload, "--yes")

    assert result.exit_code == 2
    assert open_letters(database) == 1


def stored(celery: CeleryCommand, count: int) -> list[str]:
    engine = open_engine(celery.env["DATABASE_URL"])
    with Session(engine, expire_on_commit=False) as session:
        ids = [str(put(session).id) for _ in range(count)]
    engine.dispose()
    return ids


@pytest.mark.timeout(300)
def test_two_operators_who_redrive_the_same_letters_make_one_run_of_each(celery: CeleryCommand, valkey: Server) -> None:
    ids = stored(celery, 3)
    answers = [
        ended(process) for process in [celery.start("dlq", "redrive", *ids, "--yes", "--json") for _ in range(3)]
    ]

    assert [answer.code for answer in answers] == [0, 0, 0], answers
    runs = [entry for answer in answers for entry in answer.json["redriven"]]
    assert len({entry["run_id"] for entry in runs}) == 3
    assert [entry["is_duplicate"] for entry in runs].count(False) == 3
    with valkey.client() as client:
        assert client.zcard("taskyard:waiting:celery") == 3


@pytest.mark.timeout(300)
def test_a_broker_that_is_away_is_one_line_and_code_1(celery: CeleryCommand) -> None:
    (letter,) = stored(celery, 1)
    away = CeleryCommand({**celery.env, "REDIS_URL": "redis://127.0.0.1:1/0"})
    answer = away("dlq", "redrive", letter, "--yes")

    assert answer.code == 1
    assert answer.err.startswith("Error: broker: ")
    assert answer.err.strip().endswith("; start it (celery -A tasks up), or set REDIS_URL")
    assert len(answer.err.strip().splitlines()) == 1
    assert celery("dlq", "ls", "--json").json["items"][0]["id"] == letter, "it is open again"


@pytest.mark.timeout(300)
def test_a_database_that_is_away_is_one_line_and_code_1_and_verbose_shows_where(celery: CeleryCommand) -> None:
    away = CeleryCommand({**celery.env, "DATABASE_URL": "postgresql+psycopg://u:s3cret@127.0.0.1:1/none"})
    brief, long = away("jobs", "ls"), away("jobs", "ls", "-v")

    assert (brief.code, long.code) == (1, 1)
    assert brief.err.startswith("Error: database: ")
    assert len(brief.err.strip().splitlines()) == 1
    assert "Traceback" in long.err
    assert "s3cret" not in brief.err + long.err


@pytest.mark.timeout(300)
def test_a_wrong_setting_is_reported_with_code_2(celery: CeleryCommand) -> None:
    answer = CeleryCommand({**celery.env, "DATABASE_URL": "mysql://nowhere"})("jobs", "ls")

    assert answer.code == 2
    assert "DATABASE_URL" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "path",
    [["db"], ["db", "upgrade"], ["db", "current"], ["jobs"], ["jobs", "ls"], ["jobs", "show"], ["dlq"], ["dlq", "ls"],
     ["dlq", "show"], ["dlq", "redrive"], ["dlq", "discard"]],
    ids=" ".join,
)  # fmt: skip
def test_every_help_ends_with_code_0(command: Command, path: list[str]) -> None:
    assert command(*path, "--help").exit_code == 0
