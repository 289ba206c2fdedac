"""`jobs` and `db`: what they print, and how they end."""

import json
from datetime import timedelta

import pytest
import redis

from taskyard.database.columns import utc_now
from taskyard.history.writer.event_writer import EventWriter
from taskyard.tasks.dead_letters.redrive import redriven_run_id
from tests.cli.conftest import Command
from tests.databases import Database
from tests.history import records_app
from tests.history.dead_letter_rows import put
from tests.history.event_streams import BEGIN_MS, PREFIX, append, append_life
from tests.servers import Server

RUN_KEYS = {
    "id", "task", "queue", "priority", "state", "attempts", "user_id", "correlation_id", "parent_id", "root_id",
    "redrive_of", "args", "enqueued_at", "scheduled_for", "due_at", "started_at", "finished_at", "wait_ms",
    "runtime_ms", "result", "error_type", "error_message", "error_signature",
    "progress",
}  # fmt: skip


@pytest.fixture
def history(valkey: Server, database: Database) -> None:
    """Four runs: one succeeded at its second attempt, one failed, one running, one queued by it."""
    with redis.Redis.from_url(valkey.url) as client:
        append_life(client, "run-1")
        append(client, "queued", "run-2", after_ms=1000, user_id="u-2", args={"name": "Grace"})
        append(client, "started", "run-2", after_ms=1100)
        append(client, "failed", "run-2", after_ms=1200)
        append(client, "queued", "run-3", after_ms=2000)
        append(client, "started", "run-3", after_ms=2100)
        append(client, "queued", "run-4", after_ms=3000, parent_id="run-3", task="other.task")
        EventWriter(client, database.engine, PREFIX).drain()


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["run-4", "run-3", "run-2", "run-1"]),
        (["--task", "other.task"], ["run-4"]),
        (["--state", "failed"], ["run-2"]),
        (["--user", "u-2"], ["run-2"]),
        (["--queue", "nowhere"], []),
        (["--text", "Grace"], ["run-2"]),
        (["--text", "order 17"], ["run-2"]),
        (["--text", "100%_"], []),
        (["--limit", "2"], ["run-4", "run-3"]),
        (["--since", "2026-09-21T14:13:22"], ["run-4", "run-3"]),
        (["--until", "2026-09-21T16:13:22+02:00"], ["run-2", "run-1"]),
    ],
)
def test_jobs_ls_lists_the_runs_that_a_filter_means(command: Command, options: list[str], ids: list[str]) -> None:
    result = command("jobs", "ls", "--json", *options)

    assert result.exit_code == 0, result.output
    assert [item["id"] for item in json.loads(result.stdout)["items"]] == ids


@pytest.mark.usefixtures("history")
def test_pages_of_jobs_follow_each_other(command: Command) -> None:
    first = json.loads(command("jobs", "ls", "--json", "--limit", "3").stdout)
    second = json.loads(command("jobs", "ls", "--json", "--limit", "3", "--after", first["next"]).stdout)

    assert [item["id"] for item in first["items"] + second["items"]] == ["run-4", "run-3", "run-2", "run-1"]
    assert second["next"] is None


@pytest.mark.usefixtures("history")
def test_the_json_of_jobs_has_a_stable_schema(command: Command) -> None:
    listed = json.loads(command("jobs", "ls", "--json").stdout)
    shown = json.loads(command("jobs", "show", "run-1", "--json").stdout)

    assert set(listed) == {"items", "next"}
    assert all(set(item) == RUN_KEYS for item in listed["items"])
    assert set(shown) == RUN_KEYS | {"attempt_list", "children", "dead_letters"}
    assert [attempt["state"] for attempt in shown["attempt_list"]] == ["retrying", "succeeded"]
    assert shown["enqueued_at"].startswith("2026-09-21T14:13:20")


@pytest.mark.usefixtures("history")
def test_jobs_show_tells_the_story_of_a_run(command: Command) -> None:
    result = command("jobs", "show", "run-1")

    assert result.exit_code == 0
    for part in ("succeeded", "retrying", "TimeoutError: after 3 s", "celery@host (4711)", "100 ms", "***"):
        assert part in result.stdout
    assert "run-4" in command("jobs", "show", "run-3").stdout


@pytest.mark.usefixtures("history")
def test_jobs_are_followed_as_they_change(command: Command) -> None:
    tailed = command("jobs", "tail", "--state", "failed", "--for", "0s").stdout.splitlines()
    followed = command("jobs", "ls", "--follow", "--for", "1s").stdout.splitlines()

    assert len(tailed) == 1
    assert "run-2" in tailed[0]
    assert "ValueError: no such order 17" in tailed[0]
    assert [line.split("  ")[1] for line in followed] == ["run-1", "run-2", "run-3", "run-4"], "each once"


def test_a_failed_run_is_retried_through_its_dead_letter(command: Command, database: Database, valkey: Server) -> None:
    with database.session() as session:
        letter = put(session, run_id="run-9")
    answer = json.loads(command("jobs", "retry", "run-9", "--reason", "repaired", "--json").stdout)

    assert answer == {"run_id": "run-9", "result": "redriven", "new_run_id": redriven_run_id(letter.id)}
    with valkey.client() as client:
        assert client.zcard("taskyard:waiting:celery") == 1


def test_a_delayed_run_is_retried_now(command: Command, valkey: Server, database: Database) -> None:
    run_id = str(records_app.greet.apply_async(kwargs={"name": "Ada"}, countdown=3600).id)
    with redis.Redis.from_url(valkey.url) as client:
        EventWriter(client, database.engine, PREFIX).drain()

    assert "promoted" in command("jobs", "retry", run_id).stdout
    assert command("jobs", "retry", run_id).exit_code == 1, "it waits already"
    with valkey.client() as client:
        assert client.zcard("taskyard:waiting:celery") == 1


@pytest.mark.usefixtures("history")
def test_a_run_that_is_over_is_not_retried(command: Command) -> None:
    answer = command("jobs", "retry", "run-1")

    assert (answer.exit_code, "nothing to retry" in answer.stderr) == (1, True)
    assert command("jobs", "retry", "nobody").exit_code == 3
    assert command("jobs", "logs", "nobody").exit_code == 3


@pytest.mark.usefixtures("history")
def test_a_pipe_gets_aligned_text(command: Command) -> None:
    header, *lines = command("jobs", "ls").stdout.splitlines()

    assert all(
        line[header.index("state") :].split()[0] in {"queued", "running", "failed", "succeeded"} for line in lines
    )
    assert len(lines) == 4


def test_what_a_task_said_cannot_command_the_terminal(command: Command, valkey: Server, database: Database) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        append(client, "queued", "run-1", task="a\x1b[2Jb\r\nc")
        append(client, "failed", "run-1", traceback="one\x1b]0;title\x07\ntwo")
        EventWriter(client, database.engine, PREFIX).drain()

    for arguments in (["ls"], ["show", "run-1"]):
        output = command("jobs", *arguments).stdout
        assert not {"\x1b", "\x07", "\r"} & set(output)


def test_an_age_counts_back_from_now(command: Command, valkey: Server, database: Database) -> None:
    past_ms = int((utc_now() - timedelta(hours=3)).timestamp() * 1000) - BEGIN_MS
    with redis.Redis.from_url(valkey.url) as client:
        append(client, "queued", "run-1", after_ms=past_ms)
        EventWriter(client, database.engine, PREFIX).drain()

    assert json.loads(command("jobs", "ls", "--json", "--since", "2h").stdout)["items"] == []
    assert len(json.loads(command("jobs", "ls", "--json", "--since", "4h").stdout)["items"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["jobs", "show", "nobody"], 3, "Error: no run nobody"),
        (["jobs", "show"], 2, "Missing argument"),
        (["jobs", "ls", "--since", "yesterday-ish"], 2, "is not a time"),
        (["jobs", "ls", "--since", "2026-13-01"], 2, "is not a time"),
        (["jobs", "ls", "--since", "999999w"], 2, "is not a time"),
        (["jobs", "ls", "--state", "lost"], 2, "'lost' is not one of"),
        (["jobs", "ls", "--limit", "0"], 2, "--limit"),
        (["jobs", "ls", "--limit", "many"], 2, "--limit"),
        (["jobs", "ls", "--after", "x"], 2, "cursor"),
        (["jobs", "ls", "--colour", "red"], 2, "--colour"),
    ],
)
def test_a_bad_request_is_one_line_on_stderr(command: Command, arguments: list[str], code: int, text: str) -> None:
    result = command(*arguments)

    assert result.exit_code == code
    assert result.stdout == ""
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_db_upgrade_makes_the_tables_and_says_so(empty_command: Command) -> None:
    before = json.loads(empty_command("db", "current", "--json").stdout)
    upgraded = empty_command("db", "upgrade")
    again = empty_command("db", "upgrade")
    after = json.loads(empty_command("db", "current", "--json").stdout)

    assert {(owner["current"], owner["is_current"]) for owner in before} == {(None, False)}
    assert "taskyard: upgraded from no tables to" in upgraded.stdout
    assert "taskyard: already at" in again.stdout
    assert {owner["is_current"] for owner in after} == {True}


def test_a_database_without_tables_is_told_how_to_get_them(empty_command: Command) -> None:
    result = empty_command("jobs", "ls")

    assert result.exit_code == 1
    assert "celery -A tasks db upgrade" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def command_json(run: Command, *arguments: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run(*arguments, "--json").stdout)
    return found


@pytest.mark.usefixtures("history")
def test_a_run_is_found_by_a_prefix_that_only_it_has(command: Command, valkey: Server, database: Database) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        append(client, "queued", "abc-1")
        EventWriter(client, database.engine, PREFIX).drain()

    assert json.loads(command("jobs", "show", "abc", "--json").stdout)["id"] == "abc-1"
    assert command("jobs", "logs", "abc").exit_code == 0
    several = command("jobs", "show", "run-")
    assert (several.exit_code, "several ids begin with 'run-'" in several.stderr) == (2, True)
    assert command("jobs", "show", "%").exit_code == 3, "a prefix is no pattern"
