"""`doctor` names what waits for a person: dead letters, failing schedules, and messages that nobody reads."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from sqlalchemy import select

from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.webhooks.models import Endpoint
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.history.dead_letter_rows import put
from tests.history.event_streams import PREFIX
from tests.history.records_app import greet
from tests.monitor.test_doctor import findings
from tests.servers import Server

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def test_open_dead_letters_are_counted(command: Command, database: Database) -> None:
    assert findings(command)["dead letters"]["verdict"] == "ok"
    with database.session() as session:
        put(session)
    found = findings(command)["dead letters"]
    assert (found["verdict"], found["note"].startswith("1 open"), "dlq ls" in found["fix"]) == ("warning", True, True)


def test_a_schedule_whose_last_run_was_refused_is_named(command: Command) -> None:
    words = ("--task", "records.greet", "--args", '{"name": "Ada"}', "--every", "5m", "--yes")
    assert command("schedules", "add", "nightly", *words).exit_code == 0
    assert findings(command)["schedules"]["verdict"] == "ok"
    with open_session() as session:
        schedule = session.scalars(select(Schedule)).one()
        fire = ScheduleFire(id=uuid4(), schedule_id=schedule.id, slot=utc_now(), due_at=utc_now(), state="refused")
        schedule.last_run_id = fire.id
        session.add(fire)
        session.commit()
    found = findings(command)["schedules"]
    assert (found["verdict"], "nightly" in found["note"]) == ("warning", True)


def test_endpoints_without_the_keys_that_sign_for_them_are_a_fault(command: Command) -> None:
    assert findings(command)["webhook keys"]["verdict"] == "ok", "who uses no webhooks needs no keys"
    with open_session() as session:
        session.add(Endpoint(url="https://subscriber.example/hook"))
        session.commit()
    found = findings(command)["webhook keys"]
    assert (found["verdict"], "WEBHOOK_SECRET_KEYS" in found["note"]) == ("fault", True)


def test_a_dead_message_without_a_dead_letter_is_a_fault(command: Command, valkey: Server, database: Database) -> None:
    """Nobody would run it again, and nobody would know."""
    run_id = str(greet.delay(name="Ada").id)
    with valkey.client() as client:
        client.zrem(f"{PREFIX}waiting:celery", run_id)
        client.zadd(f"{PREFIX}dead:celery", {run_id: 1_000_000})
    found = findings(command)["dead messages"]
    assert (found["verdict"], "1 in celery" in found["note"]) == ("fault", True)
    with database.session() as session:
        put(session, run_id=run_id)
    assert findings(command)["dead messages"]["verdict"] == "ok"


def test_messages_of_a_client_on_stock_kombu_are_found(command: Command, valkey: Server) -> None:
    """Its `send_task` goes to a list of the queue's name, which no worker of ours reads."""
    assert findings(command)["stock messages"]["verdict"] == "ok"
    with valkey.client() as client:
        client.lpush("celery", json.dumps({"body": ""}))
        client.lpush("maintenance\x06\x163", "one", "two")
    found = findings(command)["stock messages"]
    assert (found["verdict"], found["note"]) == (
        "fault",
        "sent with stock kombu, never read: 1 for celery, 2 for maintenance",
    )


def test_a_client_in_another_project_needs_the_transport(command: Command, valkey: Server) -> None:
    """It has none of the tasks: with the transport its message waits in the queue, without it where nobody reads."""
    for transport in ("taskyard.broker.transport.transport:Transport", None):
        with Celery("elsewhere", broker=valkey.url, set_as_current=False) as client:
            if transport:
                client.conf.broker_transport = transport
            client.send_task("markets.confirm", kwargs={}, queue="maintenance")
    queues = json.loads(command("queues", "ls", "--json").stdout)["items"]
    assert {each["queue"]: each["waiting"] for each in queues}["maintenance"] == 1
    assert findings(command)["stock messages"]["note"] == "sent with stock kombu, never read: 1 for maintenance"


def test_a_hanging_broker_does_not_make_each_check_wait_in_turn(
    command: Command, valkey: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All checks together have one limit."""
    monkeypatch.setattr("taskyard.monitor.doctor.LIMIT", 2.0)
    monkeypatch.chdir(tmp_path)
    valkey.suspend()
    try:
        found = findings(command)
    finally:
        valkey.resume()
    assert found["broker"]["note"] == "no answer within 2 s"
    assert found["database"]["verdict"] == "ok"
