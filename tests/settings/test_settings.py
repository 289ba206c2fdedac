"""Settings are read once, checked whole, and say every error at once."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from taskyard.settings.group import SettingsError
from taskyard.settings.loading import load_settings
from taskyard.settings.platform import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings({})
    assert settings.worker_queue_stalled_interval == timedelta(seconds=30)
    assert settings.database_url == "sqlite:///taskyard.db"


def test_texts_become_values_with_units() -> None:
    settings = load_settings(
        {"WORKER_QUEUE_STALLED_INTERVAL": "5000", "WEBHOOK_RETRY_DELAYS": "1, 2.5", "WORKER_COUNT": "cpus"}
    )
    assert settings.worker_queue_stalled_interval == timedelta(seconds=5)
    assert settings.webhook_retry_delays == (timedelta(seconds=1), timedelta(seconds=2.5))
    assert settings.worker_count >= 1


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_LEVEL=debug\nWORKER_QUEUE_CONCURRENCY=9\n")
    settings = load_settings({"LOG_LEVEL": "error"}, tmp_path / ".env")
    assert (settings.log_level, settings.worker_queue_concurrency) == ("error", 9)


def test_an_empty_value_means_unset() -> None:
    assert load_settings({"METRICS_PORT": ""}).metrics_port is None
    assert load_settings({"WEBHOOK_RETRY_DELAYS": " "}).webhook_retry_delays


@pytest.mark.parametrize("name", ["WORKER_TIMEOUT", "BACKUP_BUCKET", "AUDIT_DSN", "METRICS_ENDPOINT"])
def test_a_variable_of_another_program_stops_nothing(name: str) -> None:
    assert load_settings({name: "theirs", "WORKER_COUNT": "3"}).worker_count == 3


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WORKER_COUNTS", "did you mean WORKER_COUNT?"),
        ("WORKER_CONCURRENCY", "did you mean WORKER_QUEUE_CONCURRENCY?"),
        ("METRICS_PROT", "did you mean METRICS_PORT?"),
        ("TASKYARD_SOMETHING", "not a setting of Taskyard"),
    ],
)
def test_a_mistyped_setting_is_named_with_the_one_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(meant)):
        load_settings({name: "1"})


def test_levels_are_read_in_any_case_and_postgres_urls_without_a_driver() -> None:
    settings = load_settings({"LOG_LEVEL": "INFO", "LOG_FORMAT": "JSON", "DATABASE_URL": "postgresql://u:p@db/shop"})
    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.database_url == "postgresql+psycopg://u:p@db/shop"


def test_an_error_does_not_fill_the_terminal() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"WEBHOOK_ALLOW_NETS": "x" * 100_000})
    assert len(str(caught.value).splitlines()[0]) < 400


def test_all_errors_come_at_once_with_the_known_names() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"WORKER_COUNT": "x", "WEBHOOK_ALLOW_NETS": "10.0.0.1/8", "AUDIT_RETENTION": "1"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "AUDIT_RETENTION: not a setting of Taskyard; did you mean AUDIT_LOG_RETENTION_DAYS?"
    assert [line.split(":")[0] for line in lines[1:]] == ["WORKER_COUNT", "WEBHOOK_ALLOW_NETS", "Known settings"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_QUEUE_STALLED_INTERVAL", "soon"),
        ("WORKER_QUEUE_STALLED_INTERVAL", "-1"),
        ("WORKER_QUEUE_STALLED_INTERVAL", "nan"),
        ("WORKER_QUEUE_STALLED_INTERVAL", "1e300"),
        ("WORKER_QUEUE_STALLED_INTERVAL", "0"),
        ("WORKER_QUEUE_JOB_ATTEMPTS", "0"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://localhost:99999/0"),
        ("REDIS_URL", "redis://localhost:6379/jobs"),
        ("REDIS_URL", "redis://:secret/word@localhost:6379/0"),
        ("REDIS_URL", "sentinel://a:26379;b:26379/0"),
        ("WEBHOOK_TERMINAL_CODES", "400,gone"),
        ("WEBHOOK_TERMINAL_CODES", "4000"),
        ("WEBHOOK_SECRET_KEYS", "k1"),
        ("WEBHOOK_SECRET_KEYS", "k1:c2VjcmV0"),
        ("WEBHOOK_SECRET_KEYS", "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,k2:?"),
        ("WEBHOOK_TOTAL_TIMEOUT", "0"),
        ("WEBHOOK_CONNECT_TIMEOUT", "0"),
        ("CHAIN_TIMEOUT", "0"),
        ("LOG_FORMAT", "xml"),
        ("WEBHOOK_RETRY_DELAYS", "1,two"),
        ("METRICS_PORT", "70000"),
        ("TASKYARD_KEY_PREFIX", "a b"),
        ("DATABASE_URL", "mysql://localhost/shop"),
        ("DATABASE_URL", "sqlite://shop.db"),
        ("DATABASE_URL", "shop.db"),
        ("WEBHOOK_SWEEP_INTERVAL", "0"),
        ("MARKET_CONFIRM_INTERVAL", "0"),
        ("RECONCILIATION_SWEEP_INTERVAL", "1e9"),
        ("WEBHOOK_RETRY_DELAYS", ","),
        ("WEBHOOK_RETRY_DELAYS", "30,1e12"),
        ("WEBHOOK_SECRET_KEYS", ","),
        ("WEBHOOK_EVENT_TYPES", "market.*"),
        ("METRICS_AUTH_TOKEN", "t\u00f6ken"),
        ("CHAIN_RPC_URL", "node.example"),
        ("CHAIN_RPC_URL", "ws://node.example"),
        ("CHAIN_RPC_URL", "https://"),
        ("CHAIN_RPC_URL", "https://node.example:port/"),
        ("CHAIN_RPC_URL", "https://node.example/my key"),
        ("BACKUP_SLACK_WEBHOOK_URL", "#alerts"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load_settings({name: value})


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    settings = load_settings({"WEBHOOK_SECRET_KEYS": f"k1:{key}", "METRICS_AUTH_TOKEN": "t0ken"})
    assert key not in f"{settings!r}{settings}{settings.model_dump_json()}"
    assert "t0ken" not in f"{settings!r}{settings}{settings.model_dump_json()}"


def test_a_wrong_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"DATABASE_URL": "mysql://hunter3@h", "METRICS_PORT": "hunter2", "CHAIN_RPC_URL": "hunter4"})
    assert "hunter" not in str(caught.value)


def test_a_wrong_master_key_is_named_by_its_place_only() -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_SECRET_KEYS: key 1 is not") as caught:
        load_settings({"WEBHOOK_SECRET_KEYS": "k1:c2VjcmV0"})
    assert "c2VjcmV0" not in str(caught.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().log_level = "debug"  # type: ignore[misc]  # the subject


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://localhost",
        "redis://:p%2Fw@localhost:6379/0",
        "rediss://user:pw@[::1]:6380/3?ssl_cert_reqs=required",
        "unix:///run/valkey.sock?db=1",
        "sentinel://a:26379;sentinel://b:26379/0?master_name=main",
    ],
)
def test_every_kind_of_broker_is_accepted(url: str) -> None:
    assert load_settings({"REDIS_URL": url}).redis_url == url


def test_a_broker_url_that_is_refused_shows_no_password() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"REDIS_URL": "redis://:secret/word@localhost:6379/0"})
    assert "secret" not in str(caught.value)
