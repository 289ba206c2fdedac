"""`doctor`: it finds what was broken on purpose, says how to mend it, and shows no secret."""

import json
from datetime import timedelta

import pytest

from taskyard.settings.loading import current_settings
from taskyard.tasks.policy import Policy
from taskyard.webhooks.tasks import deliver
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.fixtures.celery_command import CeleryCommand
from tests.servers import Server


def findings(command: Command, *options: str) -> dict[str, dict[str, str]]:
    answer = command("doctor", "--json", *options)
    return {finding["name"]: finding for finding in json.loads(answer.stdout)["findings"]}


def test_what_is_missing_is_a_fault_with_a_way_to_mend_it(command: Command, valkey: Server, database: Database) -> None:
    with valkey.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            found = findings(command)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    answer = command("doctor")

    assert (found["broker"]["verdict"], found["append-only file"]["verdict"]) == ("ok", "ok")
    assert found["broker"]["note"].startswith("Valkey 9")
    assert (found["eviction"]["verdict"], "noeviction" in found["eviction"]["fix"]) == ("fault", True)
    assert found["scheduler"]["fix"] == "start celery -A tasks beat"
    assert found["queue webhook-deliveries"]["fix"] == "celery -A tasks worker -Q webhook-deliveries"
    assert found["broker clock"]["note"] == "in sync with this host"
    assert found["tasks"]["verdict"] == "ok"
    if database.kind == "postgresql":
        assert (found["text search"]["verdict"], found["database clock"]["verdict"]) == ("ok", "ok")
    assert answer.exit_code == 1
    assert answer.stderr.strip().startswith("Error: problems: scheduler, queue celery")


@pytest.mark.parametrize(("share", "verdict"), [(10, "ok"), (0.9, "fault"), (1.1, "warning")])
def test_a_broker_that_fills_up_is_told(command: Command, valkey: Server, share: float, verdict: str) -> None:
    """`share` is its limit in what it uses now."""
    with valkey.client() as client:
        client.config_set("maxmemory", int(share * client.info("memory")["used_memory"]))
        try:
            found = findings(command)["memory"]
        finally:
            client.config_set("maxmemory", 0)
    assert (found["verdict"], "maxmemory" in found["fix"]) == (verdict, verdict != "ok")
    assert "no limit" in findings(command)["memory"]["note"]


def test_a_time_limit_that_no_pool_keeps_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads cannot end a handler, and say nothing about the limit that they were given."""
    told = findings(command).get("time limits", {}).get("note", "")  # other tests' tasks may be in this process
    assert "webhooks.deliver" not in told
    assert "backups.verify" not in told  # it has limits, and processes
    monkeypatch.setattr(deliver, "policy", Policy(hard_limit=timedelta(minutes=1)))
    found = findings(command)["time limits"]
    assert (found["verdict"], "webhooks.deliver" in found["note"]) == ("warning", True)


def test_a_database_without_tables_is_told_apart(empty_command: Command) -> None:
    assert findings(empty_command)["schema of taskyard"]["fix"] == "celery -A tasks db upgrade"


def test_settings_are_shown_with_secrets_masked(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_AUTH_TOKEN", "s3cret-token")
    monkeypatch.setenv("BACKUP_SLACK_WEBHOOK_URL", "https://hooks.test/s3cret-path")
    monkeypatch.setenv("CHAIN_RPC_URL", "https://user:s3cret@node.test/key")
    current_settings.cache_clear()
    as_text, as_json = command("doctor", "--settings"), command("doctor", "--settings", "--json")

    assert "s3cret" not in as_text.output + as_json.output
    shown = json.loads(as_json.stdout)["settings"]
    assert shown["METRICS_AUTH_TOKEN"] == "***"
    assert (shown["WORKER_QUEUE_STALLED_INTERVAL"], shown["WEBHOOK_RETRY_DELAYS"][0]) == (30.0, 30.0)


@pytest.mark.timeout(200)
def test_servers_that_are_away_are_findings_and_no_errors(celery: CeleryCommand) -> None:
    away = {"REDIS_URL": "redis://:s3cret@127.0.0.1:1/0", "DATABASE_URL": "postgresql+psycopg://u:s3cret@127.0.0.1:1/x"}
    answer = CeleryCommand({**celery.env, **away})("doctor", "--json")

    found = {finding["name"]: finding for finding in answer.json["findings"]}
    assert answer.code == 1
    assert all(found[name]["note"].startswith("no answer") for name in ("broker", "database", "queues", "schema"))
    assert "s3cret" not in answer.out + answer.err
