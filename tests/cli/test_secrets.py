"""No verb that reads prints a secret: not of a payload, not of a webhook, not of a URL or a setting."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis
from click.testing import Result
from sqlalchemy.engine import make_url
from sqlmodel import select

from taskyard.history.writer.event_writer import EventWriter
from taskyard.settings.loading import current_settings
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery
from taskyard.webhooks.signing.key_vault import new_master_key
from tests.cli.conftest import Command, in_this_process
from tests.cli.test_every_verb import ENDLESS, LEAVES
from tests.databases import Database
from tests.history import records_app
from tests.history.dead_letter_rows import put
from tests.history.event_streams import PREFIX, append
from tests.servers import Server

FIELD, HEADER = "secret-of-a-payload", "secret-of-a-header"
SETTINGS = {  # nothing is called that these name
    "METRICS_AUTH_TOKEN": "secret-of-metrics",
    "CHAIN_RPC_URL": "https://example.com/secret-of-the-chain",
    "BACKUP_EPHEMERAL_DB_URL": "postgresql://u:secret-of-backups@db.example.com/x",
    "BACKUP_LIVE_DB_URLS": "shop=postgresql://u:secret-of-the-shop@db.example.com/shop",
    "BACKUP_SLACK_WEBHOOK_URL": "https://example.com/secret-of-slack",
}
SECRETS = (FIELD, HEADER, "secret-of-the-database", "secret-of-the-broker", *SETTINGS.values())
CHANGING = {  # the fixture runs them too; their own tests look at what they print
    *("audit prune", "backups verify", "db adopt-broker", "db upgrade", "dlq discard", "dlq redrive"),
    *("jobs cancel", "jobs close-lost", "jobs retry"),
    *(f"markets {verb}" for verb in ("acknowledge", "override", "reopen", "resolve", "settle")),
    *("recon run", "webhooks new-key", "webhooks recover", "webhooks redeliver"),
    *("webhooks rotate-secret", "webhooks send-test"),
    *(f"queues {verb}" for verb in ("drain", "limit", "move", "pause", "promote", "remove", "resume")),
    *(f"schedules {verb}" for verb in ("add", "edit", "pause", "resume", "rm", "run")),
    *(f"webhooks endpoints {verb}" for verb in ("add", "disable", "edit", "enable", "rm")),
    *(f"flows {verb}" for verb in ("approve", "cancel", "resume", "retry-step", "skip")),
}
CODES = {  # of verbs that have nothing to show here
    "backups profiles": 2,
    "backups show": 3,
    "flows show": 2,
    "recon drifts": 3,
    "recon report": 3,
    "doctor": 1,  # no beat, no consumer
}
READING = [words for words in LEAVES if " ".join(words) not in CHANGING and words not in ENDLESS] + [("jobs", "tail")]


@dataclass(slots=True)
class SecretPlatform:
    """A platform that holds secrets wherever it may hold any."""

    command: Command
    secrets: list[str] = field(default_factory=lambda: list(SECRETS))
    ids: dict[str, str] = field(default_factory=dict)  # by the name of a verb's argument

    def run(self, *words: str) -> Result:
        """Run a verb that must succeed."""
        ended = self.command(*words)
        assert ended.exit_code == 0, (words, ended.output)
        return ended


@pytest.fixture
def platform(database: Database, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretPlatform]:
    """Servers that take any password; a run, a dead letter, a schedule, an endpoint and a delivery with secrets."""
    key = new_master_key("test").reveal()
    for name, value in {**SETTINGS, "WEBHOOK_SECRET_KEYS": key}.items():
        monkeypatch.setenv(name, value)
    database_url = make_url(database.url).set(password="secret-of-the-database")
    redis_url = valkey.url.replace("redis://", "redis://default:secret-of-the-broker@")
    for command in in_this_process(database_url.render_as_string(hide_password=False), redis_url, monkeypatch):
        made = SecretPlatform(command)
        made.secrets.append(key.partition(":")[2])
        fill(made, database, valkey)
        yield made


def fill(platform: SecretPlatform, database: Database, valkey: Server) -> None:
    payload = json.dumps({"name": "Ada", "token": FIELD})
    run_id = str(records_app.greet.delay(name="Ada", token=FIELD).id)
    with redis.Redis.from_url(valkey.url) as client:
        append(client, "failed", run_id)
        append(client, "logged", run_id, lines=[{"at": "2026-01-01", "level": "info", "logger": "l", "message": "m"}])
        EventWriter(client, database.engine, PREFIX).drain()
    with database.session() as session:
        letters = [put(session, {"name": "Ada", "token": FIELD}, run_id=run_id, attempt=number) for number in (1, 2)]
    platform.run("dlq", "redrive", str(letters[0].id), "--payload", payload, "--yes", "--reason", "mended")
    timing = ("--task", "records.greet", "--args", payload, "--every", "5m")
    platform.run("schedules", "add", "nightly", *timing, "--yes", "--reason", "asked for")
    platform.run("schedules", "run", "nightly", "--reason", "asked for")
    header = ("--header", f"X-Key: {HEADER}")
    words = ("webhooks", "endpoints", "add", "https://example.com/hooks", "--event", "*", *header, "--json")
    endpoint = json.loads(platform.run(*words).stdout)
    platform.secrets.append(endpoint["secret"])
    with database.session() as session:
        add_event(session, current_settings(), "things.done", {"id": 1})
        session.commit()
        delivery = session.exec(select(Delivery.id)).one()
    platform.ids = {"run_id": run_id, "letter_id": str(letters[1].id), "name": "nightly", "queue": "celery"}
    platform.ids |= {"endpoint_id": endpoint["id"], "delivery_id": str(delivery)}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_no_verb_that_reads_prints_a_secret(platform: SecretPlatform) -> None:
    for words in READING:
        options = {option for param in LEAVES[words].params for option in param.opts}
        arguments = [
            platform.ids.get(str(param.name), "")
            for param in LEAVES[words].params
            if param.param_type_name == "argument"
        ]
        more = ["--every", "5m", "--args", json.dumps({"token": FIELD})] if words == ("schedules", "preview") else []
        more += ["--for", "1s"] if words == ("jobs", "tail") else []
        more += ["--settings"] if words == ("doctor",) else []
        for form in ([], ["--json"], ["-v"]):
            if set(form) <= options:
                ended = platform.command(words[0], *words[1:], *filter(None, arguments), *more, *form)
                for secret in platform.secrets:
                    assert secret not in ended.output, (words, form)
                assert ended.exit_code == CODES.get(" ".join(words), 0), (words, ended.output)
