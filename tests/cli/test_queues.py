"""`queues` and `jobs explain|cancel`: what an operator sees and changes, and what is refused."""

import json
from uuid import uuid4

import pytest
from sqlmodel import select

from tasks.app import app
from taskyard.database.engine import current_engine, open_session
from taskyard.history.operator_log import Operation
from taskyard.settings.loading import current_settings
from taskyard.tasks.call_options import RunHandle
from taskyard.webhooks.payloads import DeliverWebhook
from taskyard.webhooks.tasks import deliver
from tests.app_broker import use_broker
from tests.fixtures.applications import Command
from tests.servers import Server

QUEUE = "webhook-deliveries"


@pytest.fixture
def enqueued(command: Command, valkey: Server) -> RunHandle:  # noqa: ARG001 - it sets the environment
    """A run that waits, since no worker is up; the app is pointed at the test's broker."""
    use_broker(valkey.url)
    with app.connection_for_write() as connection, connection.Producer() as producer:
        return deliver.enqueue(DeliverWebhook(delivery_id=uuid4()), group_key="shop", producer=producer)  # type: ignore[call-arg]  # CeleryCommand's own option


def operations() -> list[tuple[str, str, str | None, int]]:
    with open_session() as session:
        return [(row.verb, row.target, row.reason, row.count) for row in session.exec(select(Operation)).all()]


def test_a_waiting_run_is_counted_peeked_and_explained(command: Command, enqueued: RunHandle) -> None:
    listed = {row["queue"]: row for row in json.loads(command("queues", "ls", "--json").stdout)["items"]}
    assert (listed[QUEUE]["waiting"], listed[QUEUE]["consumers"], listed["dead-letter"]["waiting"]) == (1, 0, 0)
    (peeked,) = json.loads(command("queues", "peek", QUEUE, "--json").stdout)["items"]
    assert (peeked["run_id"], peeked["task"], peeked["group_key"]) == (enqueued.id, "webhooks.deliver", "shop")
    explained = json.loads(command("jobs", "explain", str(enqueued.id), "--json").stdout)
    assert explained["state"] == "waiting"
    assert f"no worker takes from queue {QUEUE}" in explained["reasons"]


def test_a_pause_says_by_whom_and_why_until_it_ends(command: Command, enqueued: RunHandle) -> None:
    assert command("queues", "pause", QUEUE, "--for", "2h", "--reason", "deploy").exit_code == 0
    assert "is paused by" in command("jobs", "explain", str(enqueued.id)).stdout
    assert "deploy" in command("queues", "ls").stdout
    assert command("queues", "resume", QUEUE).exit_code == 0
    assert "paused" not in command("queues", "ls").stdout
    assert [row[:3] for row in operations()] == [
        ("queues pause", QUEUE, "deploy"),
        ("queues resume", QUEUE, None),
    ]


def test_an_outage_of_the_database_keeps_nobody_from_pausing(
    command: Command, enqueued: RunHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a reason to pause; the missing row is told. What cannot be undone is refused."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nowhere")
    current_settings.cache_clear()
    current_engine.cache_clear()
    for verb in (["pause", "--reason", "no database"], ["limit", "--concurrency", "1"], ["resume"]):
        answer = command("queues", verb[0], QUEUE, *verb[1:])
        assert answer.exit_code == 4
        told = f"Error: queues {verb[0]} {QUEUE}: done, but not recorded in the operator log: database: "
        assert answer.stderr.startswith(told)
        if verb[0] == "pause":
            assert "no database" in command("queues", "ls").stdout
    assert "concurrency 1" in command("queues", "ls").stdout
    assert "no database" not in command("queues", "ls").stdout, "it was resumed"
    assert command("queues", "drain", QUEUE, "--yes", "--reason", "test").exit_code == 1
    assert json.loads(command("queues", "peek", QUEUE, "--json").stdout)["items"][0]["run_id"] == enqueued.id


def test_a_broker_that_became_a_replica_is_told_and_nothing_is_changed(command: Command, valkey: Server) -> None:
    with valkey.client() as client:
        client.replicaof("127.0.0.1", "1")
        try:
            answer = command("queues", "pause", QUEUE, "--reason", "r")
        finally:
            client.replicaof("NO", "ONE")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("Error: broker: the server refuses to work: You can't write against a read only")
    assert "start it" not in answer.stderr
    assert operations() == []


def test_limits_are_set_one_by_one_and_taken_away(command: Command) -> None:
    assert command("queues", "limit", QUEUE, "--rate", "30/m", "--key-concurrency", "3").exit_code == 0
    shown = command("queues", "limit", QUEUE, "--concurrency", "7").stdout
    assert shown.strip() == f"{QUEUE}: rate 30/m, concurrency 7, concurrency per key 3"
    cleared = command("queues", "limit", QUEUE, "--rate", "none", "--concurrency", "none", "--key-concurrency", "none")
    assert cleared.stdout.strip() == f"{QUEUE}: no limits"


def test_a_run_is_moved_and_removed(command: Command, enqueued: RunHandle) -> None:
    run_id = str(enqueued.id)
    assert command("queues", "move", run_id, "maintenance").exit_code == 0
    assert json.loads(command("jobs", "explain", run_id, "--json").stdout)["queue"] == "maintenance"
    assert command("queues", "remove", run_id, "--yes", "--reason", "test").exit_code == 0
    assert command("jobs", "explain", run_id).exit_code == 3


def test_a_drain_needs_consent_and_a_reason_and_counts(command: Command, enqueued: RunHandle) -> None:
    assert command("queues", "drain", QUEUE).exit_code == 2
    assert command("queues", "drain", QUEUE, "--yes").exit_code == 2
    assert "1 waiting" in command("queues", "drain", QUEUE, "--dry-run").stdout
    assert command("jobs", "explain", str(enqueued.id)).exit_code == 0
    assert command("queues", "drain", QUEUE, "--yes", "--reason", "test").exit_code == 0
    assert operations() == [("queues drain", QUEUE, "test", 1)]


def test_a_cancelled_run_says_so(command: Command, enqueued: RunHandle) -> None:
    run_id = str(enqueued.id)
    ended = command("jobs", "cancel", run_id, "--yes", "--reason", "wrong data")
    assert (ended.exit_code, ended.stdout.strip()) == (0, f"{run_id} is cancelled; it was waiting")
    assert operations() == [("jobs cancel", run_id, "wrong data", 1)]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["queues", "pause", "webhoks"], 3, "known queues: "),
        (["queues", "pause", QUEUE, "--for", "soon"], 2, "is not a duration"),
        (["queues", "pause", QUEUE, "--for", "0m"], 2, "must be positive"),
        (["queues", "pause", QUEUE, "--for", "999999w"], 2, "too long"),
        (["queues", "limit", QUEUE], 2, "give a limit"),
        (["queues", "limit", QUEUE, "--concurrency", "\u00b2"], 2, "is not a limit"),
        (["queues", "limit", QUEUE, "--rate", "0/s"], 2, "is not a rate"),
        (["queues", "limit", QUEUE, "--concurrency", "-1"], 2, "is not a limit"),
        (["queues", "promote", "nobody"], 3, "no message of run nobody"),
        (["queues", "move", "nobody", "maintenance"], 3, "no message of run nobody"),
        (["queues", "remove", "nobody", "--yes", "--reason", "x"], 3, "no message of run nobody"),
        (["jobs", "explain", "nobody"], 3, "no message of run nobody"),
        (["jobs", "cancel", "nobody", "--yes", "--reason", "x"], 3, "no message of run nobody"),
        (["jobs", "cancel", "nobody"], 2, "--yes"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_record(command: Command, words: list[str], code: int, says: str) -> None:
    ended = command(*words)
    assert ended.exit_code == code, ended.output
    assert says in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert operations() == []
