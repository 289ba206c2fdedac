"""The compose file and the Dockerfile as papers: services, queues, variables, limits. No engine runs here."""

import re
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskyard.launch.programs import CELERY_POOL_NAMES, SHUTDOWN_GRACE
from taskyard.settings.loading import load_settings
from taskyard.settings.platform import Settings
from taskyard.settings.profiles import PROFILES

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SECRETS = ("VALKEY_PASSWORD", "POSTGRES_PASSWORD", "WEBHOOK_SECRET_KEYS", "FLOWER_BASIC_AUTH", "METRICS_AUTH_TOKEN")
OURS = ("worker-io", "worker-prefork", "beat", "flower", "migrate")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)["services"]
    return found


def test_it_has_the_services_that_a_deployment_needs(services: dict[str, Any]) -> None:
    assert set(services) == {*OURS, "valkey", "postgres"}
    assert services["beat"]["deploy"]["replicas"] == 2
    assert "--appendonly yes" in " ".join(services["valkey"]["command"])
    assert "noeviction" in " ".join(services["valkey"]["command"])


def test_the_workers_take_from_the_queues_of_their_profiles(services: dict[str, Any]) -> None:
    for profile in PROFILES:
        command = services[f"worker-{profile.name}"]["command"]
        assert command[command.index("-Q") + 1].split(",") == list(profile.queues)
        assert command[command.index("-P") + 1] == CELERY_POOL_NAMES.get(profile.pool, profile.pool)


def test_every_image_is_a_variable_and_no_secret_has_a_default(services: dict[str, Any]) -> None:
    assert all(service["image"].startswith("${") for service in services.values())
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}(:.)", TEXT)
        assert uses
        assert set(uses) == {":?"}, name


def test_every_setting_it_gives_is_one_of_ours(services: dict[str, Any]) -> None:
    given = services["worker-io"]["environment"]
    assert {name.lower() for name in given} <= set(Settings.model_fields)


def test_a_container_gets_the_time_that_its_worker_takes_to_end(services: dict[str, Any]) -> None:
    needed = load_settings({}).worker_shutdown_seconds.total_seconds() + SHUTDOWN_GRACE
    for name in ("worker-io", "worker-prefork"):
        assert int(services[name]["stop_grace_period"].removesuffix("s")) > needed


def test_all_that_stays_up_has_a_health_check_and_waits_for_the_migration(services: dict[str, Any]) -> None:
    for name in {*services} - {"migrate"}:
        assert services[name]["healthcheck"]["test"]
    for name in {*OURS} - {"migrate"}:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_the_image_is_not_root_has_every_package_and_takes_its_base_as_an_argument() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "ARG BASE_IMAGE=python:3.13-slim" in lines
    assert [line for line in lines if line.startswith("FROM")] == ["FROM ${BASE_IMAGE} AS build", "FROM ${BASE_IMAGE}"]
    assert "USER taskyard" in lines
    packages = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packages
    for package in re.findall(r'"(\w+)"', packages[1]):
        assert f"COPY {package} {package}" in lines
    assert not [line for line in lines if "--mount" in line], "classic builders must do"


def test_the_image_gets_what_kombus_redis_transport_needs() -> None:
    """The development lock has more packages than the image, so a missing one shows only there."""
    locked = re.findall(r"^([\w-]+)(?:\[\w+\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    needed = [each for each in requires("kombu") or () if each.endswith('extra == "redis"')]
    assert len(needed) >= 2
    assert {re.split(r"[^\w-]", each)[0].lower() for each in needed} <= set(locked)
