"""Who hears of a verification, and that nobody's silence changes its result."""

import json
import shutil
from contextlib import closing
from datetime import timedelta
from ipaddress import ip_network

import pytest
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.settings import BackupSettings
from scripts.standins.receiver import Receiver
from tasks.backups.checks.verification_report import FinishedVerification, VerificationReport
from tasks.backups.notices import make_announcer, slack_body
from taskyard.database.columns import utc_now
from taskyard.settings.loading import load_settings
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.endpoints import disable, register
from taskyard.webhooks.delivery.store import SqlDeliveryStore
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.handlers import DeliveryDependencies, deliver, sweep
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient, ClientOptions
from taskyard.webhooks.models import Delivery, Endpoint, Event
from taskyard.webhooks.payloads import DeliverWebhook
from tests.backups.backup_target import BackupTarget
from tests.backups.test_sqlite_backups import PROFILE, a_database

LOOPBACK = {
    "WEBHOOK_SECRET_KEYS": "test:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "WEBHOOK_ALLOW_HTTP": "true",
    "WEBHOOK_ALLOW_NETS": "127.0.0.0/8",
}


@pytest.fixture
def notes(sqlite_target: BackupTarget) -> BackupTarget:
    sqlite_target.write_profile(PROFILE)
    a_database(sqlite_target.dumps / "notes.db")
    sqlite_target.add_manifest()
    return sqlite_target


def announce_to(backup_target: BackupTarget, slack_url: str | None, **more: str) -> Settings:
    """Let the target announce as the platform does; events are written, and no broker is needed."""
    slack = {"BACKUP_SLACK_WEBHOOK_URL": slack_url} if slack_url else {}
    given = {**LOOPBACK, **slack, **more}
    settings = load_settings(given)

    def emit(session: Session, event_type: str, data: object, key: str | None) -> str:
        return add_event(session, settings, event_type, data, key)[0]

    backup_target.announce = make_announcer(
        load_settings(given, group=BackupSettings), settings, {"shop": backup_target.profile()}, emit
    )
    return settings


def send_all(backup_target: BackupTarget, settings: Settings) -> None:
    """Sweep and send what is due, as the webhook tasks do."""
    store = SqlDeliveryStore(backup_target.database.session, settings)
    due: list[DeliverWebhook] = []
    sweep(store, lambda rows: due.extend(DeliverWebhook(delivery_id=row.delivery_id) for row in rows), settings)
    options = ClientOptions(allow_http=True, allow_nets=(ip_network("127.0.0.0/8"),))
    with closing(AiohttpWebhookClient(options)) as client:
        for payload in due:
            deliver(payload, DeliveryDependencies(store, client, lambda _due: None, settings, "worker-1"))


def deliveries(backup_target: BackupTarget) -> list[Delivery]:
    with backup_target.database.session() as session:
        return list(session.scalars(select(Delivery).order_by(col(Delivery.created_at))))


def test_slack_gets_its_own_format_through_the_platforms_sender(notes: BackupTarget) -> None:
    with Receiver() as slack:
        settings = announce_to(notes, slack.url)
        assert notes.verify().state == "passed"
        send_all(notes, settings)
        (request,) = slack.requests
    message = json.loads(request.body)
    assert set(message) == {"text", "blocks"}
    assert message["text"] == "Backup verification PASSED: shop"
    assert message["blocks"][0] == {"type": "header", "text": {"type": "plain_text", "text": message["text"]}}
    assert "notes.db" in json.dumps(message["blocks"][1])
    assert request.headers["content-type"] == "application/json"


def test_a_failed_run_says_which_checks_failed(notes: BackupTarget) -> None:
    (notes.dumps / "notes.db-journal").write_bytes(b"x")
    with Receiver() as slack:
        settings = announce_to(notes, slack.url)
        assert notes.verify().state == "failed"
        send_all(notes, settings)
        message = json.loads(slack.requests[0].body)
    assert message["text"] == "Backup verification FAILED: shop"
    assert "notes.db-journal: a rollback journal of 1 bytes" in message["blocks"][2]["text"]["text"]


def test_a_second_notice_uses_the_same_endpoint(notes: BackupTarget) -> None:
    with Receiver() as slack:
        settings = announce_to(notes, slack.url)
        notes.verify()
        notes.verify()
        send_all(notes, settings)
        assert len(slack.requests) == 2
    with notes.database.session() as session:
        assert len(session.scalars(select(Endpoint)).all()) == 1


def test_a_channel_that_is_down_changes_no_result(notes: BackupTarget) -> None:
    with Receiver() as slack:
        url = slack.url
    settings = announce_to(notes, url)  # it is closed now
    result = notes.verify()
    assert result.state == "passed"
    with pytest.raises(Exception, match="connection_refused"):
        send_all(notes, settings)
    assert notes.run(result.run_id).state == "passed"
    assert [row.state for row in deliveries(notes)] == ["retrying"]


@pytest.mark.parametrize(
    "setting",
    [
        {"BACKUP_SLACK_WEBHOOK_URL": "http://127.0.0.1/x", "WEBHOOK_ALLOW_HTTP": "false"},
        {"WEBHOOK_SECRET_KEYS": ""},
        {"WEBHOOK_EVENT_TYPES": "market.resolved"},
    ],
    ids=["not allowed", "no keys", "type unknown"],
)
def test_a_notice_that_cannot_be_written_changes_no_result(notes: BackupTarget, setting: dict[str, str]) -> None:
    announce_to(notes, "http://127.0.0.1:4999/hook", **setting)
    result = notes.verify()
    assert result.state == "passed"
    assert notes.run(result.run_id).finished_at is not None


def test_webhook_tables_that_are_broken_change_no_result(notes: BackupTarget) -> None:
    """The result is written in the same transaction."""
    announce_to(notes, "http://127.0.0.1:4999/hook")
    with notes.database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE taskyard_webhook_attempts")
        connection.exec_driver_sql("DROP TABLE taskyard_webhook_deliveries")
    result = notes.verify()
    assert notes.run(result.run_id).state == "passed"


def test_a_disabled_channel_gets_nothing_and_changes_no_result(notes: BackupTarget) -> None:
    settings = announce_to(notes, "http://127.0.0.1:4999/hook")
    notes.verify()
    with notes.database.session() as session, session.begin():
        disable(session, session.scalars(select(Endpoint)).one(), "by its owner")
    assert notes.verify().state == "passed"
    send_all(notes, settings)
    assert [row.state for row in deliveries(notes)] == ["parked"]


def test_subscribers_get_an_event_and_no_notice_of_slacks(notes: BackupTarget) -> None:
    settings = announce_to(notes, "http://127.0.0.1:4999/hook")
    with notes.database.session() as session, session.begin():
        endpoint, _ = register(session, settings, "http://127.0.0.1:4998/all", ["*"])
        subscriber = endpoint.id
    result = notes.verify()
    sent = [row for row in deliveries(notes) if row.endpoint_id == subscriber]
    assert [row.event_type for row in sent] == ["backup.passed"]
    with notes.database.session() as session:
        body = session.scalars(select(col(Event.body)).where(col(Event.id) == sent[0].event_id)).one()
    data = json.loads(body)["data"]
    assert (data["run_id"], data["target"], data["failed_checks"]) == (result.run_id, "shop", [])


def test_failures_only_means_that_a_good_run_is_silent(notes: BackupTarget) -> None:
    notes.write_profile(PROFILE, notify='"failures"')
    announce_to(notes, "http://127.0.0.1:4999/hook")
    notes.verify()
    assert deliveries(notes) == []
    (notes.dumps / "notes.db-journal").write_bytes(b"x")
    notes.verify()
    assert len(deliveries(notes)) == 1


def test_all_attempts_of_a_task_that_could_not_verify_make_one_notice(notes: BackupTarget) -> None:
    announce_to(notes, "http://127.0.0.1:4999/hook")
    shutil.copy(notes.dumps / "notes.db", notes.folder / "live.db")
    notes.live_files = [notes.dumps / "notes.db"]
    for holder in ("task-1", "task-1", "task-2"):
        with pytest.raises(Exception, match="live database"):
            notes.verify(holder=holder)
    assert len(deliveries(notes)) == 2
    assert [run.state for run in notes.runs()] == ["error"] * 3


def test_a_message_stays_within_slacks_bounds() -> None:
    report = VerificationReport(dump="<shop>.dump", error="no <server> & no hope")
    for number in range(500):
        report.add(f"rows table_{number}", "0, at least 1 expected <" + "x" * 200, passed=False)
    now = utc_now()
    body = slack_body(FinishedVerification("id", "shop", "error", report, now - timedelta(seconds=2), now, "me"))
    assert len(body["blocks"]) <= 50
    assert all(len(block["text"]["text"]) <= 3000 for block in body["blocks"] if "text" in block)
    assert "no &lt;server&gt; &amp; no hope" in body["blocks"][2]["text"]["text"]
    assert len(json.dumps(body)) < 16_384
