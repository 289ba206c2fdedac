"""The command line's start: what every `celery` call pays for our groups."""

import os
import subprocess
import sys

from tests.cli.celery_command import LIMIT, CeleryCommand
from tests.workers import ROOT

HEAVY = ("alembic", "audit", "celery", "config", "kombu", "pydantic", "redis", "rich", "sqlalchemy", "tasks")


def test_naming_our_groups_imports_nothing_heavy() -> None:
    """CeleryCommand imports `taskyard.cli.commands` at each of its commands, also for `worker`."""
    code = "import sys, taskyard.cli.commands; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)

    assert not set(HEAVY) & set(loaded.stdout.split())


def test_celery_lists_our_groups(celery: CeleryCommand) -> None:
    answer = celery("--help")

    assert answer.code == 0
    for line in ("db ", "dlq ", "jobs "):
        assert any(
            entry.strip().startswith(line) and "could not load" not in entry for entry in answer.out.splitlines()
        )


def test_beat_ends_when_a_setting_says_no_time(celery: CeleryCommand) -> None:
    """It must not go on without the nightly comparison, nor log the same fault every second."""
    answer = CeleryCommand({**celery.env, "RECONCILIATION_SCHEDULE": "at night"})("beat")

    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("Error: RECONCILIATION_SCHEDULE: cron 'at night': 2 fields")


def test_a_worker_ends_when_its_tasks_could_not_use_a_setting(celery: CeleryCommand) -> None:
    """Before, each delivery failed, and each was tried again for days."""
    answer = CeleryCommand({**celery.env, "WEBHOOK_CA_FILE": "/no/such.pem"})(
        "worker", "--queues", "webhook-deliveries"
    )

    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "Error: WEBHOOK_CA_FILE: /no/such.pem: No such file or directory"


def test_who_has_read_enough_is_told_of_no_error(celery: CeleryCommand) -> None:
    """`... | head -1` closes the pipe while we write."""
    long = ("schedules", "preview", "--every", "5m", "--zone", "Europe/Rome", "--count", "1000")
    process = celery.start(*long)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().endswith("Europe/Rome\n")
    process.stdout.close()

    assert process.stderr.read() == ""
    assert process.wait(LIMIT) == 1
    process.stderr.close()


def test_listing_runs_imports_only_what_it_needs(celery: CeleryCommand) -> None:
    """The whole call, with the app: what other verbs and the domains' work need, nobody waits for here."""
    words = ("-X", "importtime", "-m", "celery", "-A", "tasks", "jobs", "ls")
    env = {**os.environ, **celery.env}
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    heavy = (
        *("taskyard.beat", "beat.timetable", "taskyard.webhooks", "taskyard.monitor", "taskyard.launch"),
        *(
            "taskyard.migrations",
            "taskyard.tasks.dead_letters",
            "taskyard.history.writer.event_writer",
            "taskyard.http",
        ),
        *("audit.models", "tasks.backups.cli", "tasks.markets.models", "tasks.reconciliation.models"),
        *("alembic", "cronsim", "cryptography.hazmat", "asyncpg", "psycopg"),
    )
    assert "taskyard.cli.jobs.follow" in loaded
    assert sorted(name for name in loaded if name.startswith(heavy)) == []
