"""The Kubernetes manifests and systemd units of docs/ as papers: queues, pools, times, settings."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskyard.launch.programs import CELERY_POOL_NAMES, SHUTDOWN_GRACE
from taskyard.settings.loading import load_settings
from taskyard.settings.platform import Settings
from taskyard.settings.profiles import PROFILES, Profile

DOCS = Path(__file__).resolve().parents[2] / "docs"
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DOCS / "kubernetes.yml").read_text()))
UNITS = {path.stem: path.read_text() for path in (DOCS / "systemd").iterdir()}
SHUTDOWN = load_settings({}).worker_shutdown_seconds.total_seconds() + SHUTDOWN_GRACE


def manifest(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = manifest("Deployment", f"taskyard-{name}")["spec"]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    return dict(found)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_deployment_serves_each_profile(profile: Profile) -> None:
    command = container(f"worker-{profile.name}")["command"]
    assert command[command.index("-Q") + 1].split(",") == list(profile.queues)
    assert command[command.index("-P") + 1] == CELERY_POOL_NAMES.get(profile.pool, profile.pool)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_a_pod_gets_the_time_that_its_worker_takes_to_end(profile: Profile) -> None:
    name = f"worker-{profile.name}"
    pause = container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(name)["terminationGracePeriodSeconds"] > pause + SHUTDOWN
    given = manifest("ConfigMap", "taskyard")["data"]["WORKER_SHUTDOWN_SECONDS"]
    assert float(given) + SHUTDOWN_GRACE == SHUTDOWN


@pytest.mark.parametrize("name", ["worker-io", "worker-prefork", "beat"])
def test_every_pod_has_probes_on_the_port_of_its_settings(name: str) -> None:
    box = container(name)
    (port,) = box["ports"]
    assert str(port["containerPort"]) == manifest("ConfigMap", "taskyard")["data"]["METRICS_PORT"]
    probes = {kind: box[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]


def test_two_beats_stay_apart_and_one_is_always_there() -> None:
    assert manifest("Deployment", "taskyard-beat")["spec"]["replicas"] == 2
    assert pod("beat")["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert manifest("PodDisruptionBudget", "taskyard-beat")["spec"]["minAvailable"] == 1


def test_what_scales_on_the_waiting_tasks_asks_for_the_queues_of_what_it_scales() -> None:
    """That the metric exists is tested with the dashboards."""
    scaled = manifest("ScaledObject", "taskyard-worker-io")["spec"]
    assert scaled["scaleTargetRef"]["name"] == "taskyard-worker-io"
    queues = re.search(r'queue=~"([^"]*)"', scaled["triggers"][0]["metadata"]["query"])
    assert queues
    (io,) = (profile for profile in PROFILES if profile.name == "io")
    assert queues[1].split("|") == list(io.queues)


def test_every_setting_is_one_of_ours_and_no_secret_is_written_down() -> None:
    given = manifest("ConfigMap", "taskyard")["data"]
    assert {name.lower() for name in given} <= set(Settings.model_fields)
    assert not [each for each in MANIFESTS if each["kind"] == "Secret"]


@pytest.mark.parametrize(
    ("unit", "program", "seconds"),
    [
        ("taskyard", "celery -A tasks up", SHUTDOWN + 30),
        ("taskyard-worker@", "celery -A tasks --quiet worker", SHUTDOWN),
        ("taskyard-beat", "celery -A tasks --quiet beat", 10),
    ],
)
def test_a_unit_starts_its_program_and_gives_it_time_to_end(unit: str, program: str, seconds: float) -> None:
    text = UNITS[unit]
    assert re.search(rf"^ExecStart=\S+/{re.escape(program)}", text, re.MULTILINE)
    limit = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert limit
    assert float(limit[1]) > seconds
    assert "Restart=" in text


def test_the_worker_s_unit_names_the_queues_of_a_profile() -> None:
    (io,) = (profile for profile in PROFILES if profile.name == "io")
    assert f"QUEUES={','.join(io.queues)}\n" in UNITS["taskyard-worker@"]
    assert f"POOL={CELERY_POOL_NAMES.get(io.pool, io.pool)}\n" in UNITS["taskyard-worker@"]
