"""The dashboard and the alert rules name only what is really exported, with labels that are there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasks.backups.models import BackupRun
from tasks.reconciliation.models import ReconciliationReport
from taskyard.beat.metrics import BeatMetrics
from taskyard.broker.worker.observers import TaskExecution
from taskyard.monitor.background_collector import broker_gauges, database_gauges, families
from taskyard.monitor.in_beat import BeatCollector
from taskyard.monitor.shared_counts import exposition
from taskyard.monitor.task_counters import MAX_TASK_LABELS, TaskMeters
from tests.databases import Database
from tests.history.dead_letter_rows import put
from tests.history.event_streams import PREFIX
from tests.servers import Server

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
NAME = re.compile(r"taskyard_\w+(?:\{[^}]*\})?")
SUFFIXES = ("_bucket", "_sum", "_count")


@pytest.fixture
def exported(app_database: Database, valkey: Server) -> dict[str, set[str]]:
    """The names of all samples with their labels, of a deployment in which there is something of everything."""
    with app_database.session() as session:
        put(session)
        measured: dict[str, Any] = {"dump_bytes": 1, "duration_ms": 1}
        session.add(BackupRun(id=UUID(int=1), target="shop", state="passed", holder="h", worker="w", **measured))
        session.add(ReconciliationReport(id=UUID(int=1), scope="global", state="completed", status="ok"))
        session.commit()
    registry = CollectorRegistry()
    meters = TaskMeters(registry)
    meters.started(TaskExecution("t", "celery", 1.0))
    meters.ended(TaskExecution("t", "celery", 1.0, 1.0), "succeeded")
    beat = BeatMetrics()
    beat.fires["published"] += 1
    registry.register(BeatCollector(type("Beating", (), {"metrics": beat})()))
    with redis.Redis.from_url(valkey.url) as client:
        figures = [*broker_gauges(client, PREFIX), *database_gauges(app_database.session)]
    text = generate_latest(registry).decode() + exposition(families(figures)).decode()
    found: dict[str, set[str]] = {"taskyard_up": {"part"}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> Iterator[dict[str, Any]]:
    for path in FOLDER.glob("*.rules.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def dashboard_expressions() -> Iterator[str]:
    board = json.loads((FOLDER / "taskyard.json").read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query")


def scaling_expressions() -> Iterator[str]:
    for manifest in yaml.safe_load_all((FOLDER.parent / "docs" / "kubernetes.yml").read_text()):
        if manifest["kind"] == "ScaledObject":
            yield from (trigger["metadata"]["query"] for trigger in manifest["spec"]["triggers"])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_every_name_and_label_that_is_used_is_exported(exported: dict[str, set[str]]) -> None:
    scaling = list(scaling_expressions())
    assert scaling
    for expression in [*(rule["expr"] for rule in rules()), *dashboard_expressions(), *scaling]:
        used = NAME.findall(expression)
        assert used, expression
        for each in used:
            name, _, selector = each.partition("{")
            assert name in exported, expression
            labels = set(re.findall(r'(\w+)\s*=~?"', selector))
            assert labels <= exported[name], each


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_the_spec_s_names_are_exported_on_both_databases(exported: dict[str, set[str]]) -> None:
    wanted = {
        "taskyard_tasks_total": {"task", "queue", "outcome"},
        "taskyard_task_duration_seconds_bucket": {"task", "queue", "le"},
        "taskyard_task_wait_seconds_bucket": {"task", "queue", "le"},
        "taskyard_queue_messages": {"queue", "state"},
        "taskyard_queue_oldest_seconds": {"queue"},
        "taskyard_dead_letters": {"queue"},
        "taskyard_audit_backlog": set(),
        "taskyard_schedule_lag_seconds_bucket": {"le"},
        "taskyard_workers": set(),
    }
    assert {name: exported.get(name) for name in wanted} == wanted


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
    promtool = shutil.which("promtool")
    if promtool:
        subprocess.run([promtool, "check", "rules", *FOLDER.glob("*.rules.yml")], check=True)


def test_labels_are_bounded_whatever_messages_say() -> None:
    registry = CollectorRegistry()
    meters = TaskMeters(registry)
    for number in range(MAX_TASK_LABELS + 100):
        meters.ended(TaskExecution(f"task-{number}", f"queue-{number}", None), "failed")
    lines = [
        line for line in generate_latest(registry).decode().splitlines() if line.startswith("taskyard_tasks_total")
    ]

    assert len(lines) == MAX_TASK_LABELS + 1
    assert any('queue="other"' in line and 'task="other"' in line and line.endswith(" 100.0") for line in lines)
