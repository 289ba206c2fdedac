"""Settings of the platform: read once from the environment, checked, frozen, passed down."""

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from taskyard.settings.parsing import (
    bearer_token,
    broker_url,
    csv_seconds,
    csv_words,
    database_url,
    event_types,
    http_codes,
    http_url,
    master_keys,
    milliseconds,
    networks,
    seconds,
    worker_count,
)

OUR_PREFIXES = (
    *("AUDIT_", "BACKUP_", "BEAT_", "CHAIN_", "MARKET_", "METRICS_"),
    *("RECONCILIATION_", "TASKYARD_", "WEBHOOK_", "WORKER_"),
)
LONGEST_TEXT = 300  # characters of what is said of one value
FOREIGN_NAMES = frozenset({"TASKYARD_CONFIG"})  # reserved for the shell scripts of a deployment

type BrokerUrl = Annotated[str, AfterValidator(broker_url)]
type DatabaseUrl = Annotated[str, AfterValidator(database_url)]
type HttpUrl = Annotated[SecretStr, AfterValidator(http_url)]
type Seconds = Annotated[timedelta, BeforeValidator(seconds)]
type Timeout = Annotated[Seconds, Field(gt=timedelta(0))]
type BeatLease = Annotated[Seconds, Field(ge=timedelta(milliseconds=200), le=timedelta(seconds=60))]
type BeatAhead = Annotated[Seconds, Field(le=timedelta(seconds=60))]
type Milliseconds = Annotated[timedelta, BeforeValidator(milliseconds)]
type SecondsList = Annotated[tuple[timedelta, ...], BeforeValidator(csv_seconds), Field(min_length=1)]
type WorkerCount = Annotated[int, BeforeValidator(worker_count)]
type Words = Annotated[tuple[str, ...], BeforeValidator(csv_words)]
type HttpCodes = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(http_codes)]
type MasterKeys = Annotated[SecretStr, AfterValidator(master_keys)]
type EventTypes = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(event_types)]
type Interval = Annotated[Seconds, Field(gt=timedelta(0), le=timedelta(days=366))]  # longer is left out by beat
type Token = Annotated[SecretStr, AfterValidator(bearer_token)]
type Networks = Annotated[tuple[str, ...], BeforeValidator(csv_words), AfterValidator(networks)]


class SettingsError(click.ClickException, ValueError):
    """The environment holds a wrong value or an unknown name of ours; the text has one line per error."""

    exit_code = 2


class Settings(BaseModel):
    """All settings; a field's name in upper case is its environment variable, its description is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: BrokerUrl = Field(
        "redis://localhost:6379/0", description="Broker, results, locks: redis, rediss, unix or sentinel URL"
    )
    database_url: DatabaseUrl = Field("sqlite:///taskyard.db", description="postgresql+psycopg://... in production")
    worker_count: WorkerCount = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Worker processes per profile; a number or cpus",
    )
    worker_queue_concurrency: int = Field(5, ge=1, le=10_000, description="Slots in each worker process")
    worker_queue_job_attempts: int = Field(3, ge=1, le=1000, description="Default max_attempts: executions in total")
    worker_queue_stalled_interval: Milliseconds = Field(
        timedelta(seconds=30),
        ge=timedelta(milliseconds=100),
        description="Milliseconds, at least 100: a lease not renewed for so long is taken back",
    )
    worker_max_stalls: int = Field(
        2, ge=0, le=1000, description="A message that lost its worker more often is a dead letter"
    )
    worker_shutdown_seconds: Seconds = Field(
        timedelta(seconds=25), description="SIGTERM: finish running tasks for so long, return the rest"
    )
    worker_restart_delay: Seconds = Field(
        timedelta(seconds=1), description="up: pause before a process that died starts again; doubles up to a minute"
    )
    worker_restart_limit: int = Field(
        5, ge=0, le=1000, description="up: starts again in a row, each lived less than a minute, before all is ended"
    )
    audit_log_retention_days: int = Field(30, ge=0, le=36_500, description="Days that runs are kept; 0 keeps all")
    audit_enabled: bool = Field(default=True, description="Record runs and attempts; off only to measure its cost")
    audit_backlog_limit: int = Field(
        100_000, ge=1, description="More events than this that are not in SQL yet make /readyz fail"
    )
    beat_lease_seconds: BeatLease = Field(
        timedelta(seconds=5), description="A beat process that does not renew its lease for so long loses the lead"
    )
    beat_ahead_seconds: BeatAhead = Field(
        timedelta(seconds=1.5), description="Slots are enqueued so long before they are due; 0-60"
    )
    beat_grace_seconds: Seconds = Field(
        timedelta(seconds=60), description="Misfire policy skip: a last slot that is late by this still counts"
    )
    beat_fires_retention_days: int = Field(7, ge=0, le=36_500, description="Days that fires are kept; 0 keeps all")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")
    log_format: Literal["json", "console", "auto"] = Field("auto", description="auto: console on a terminal, else json")
    metrics_port: int | None = Field(None, ge=1, le=65_535, description="Prometheus text on this port; unset: off")
    metrics_auth_token: Token | None = Field(None, description="Bearer token that /metrics asks for")
    taskyard_transport: Literal["taskyard", "redis"] = Field(
        "taskyard", description="redis: stock kombu, for comparison and emergencies"
    )
    taskyard_key_prefix: str = Field(
        "taskyard:",
        max_length=64,
        pattern=r"^[A-Za-z0-9_.:-]*(\{[A-Za-z0-9_.:-]+\})?[A-Za-z0-9_.:-]*$",
        description="Put before every key in Redis; on a cluster with one hash tag, such as {taskyard}:",
    )
    taskyard_data: Path = Field(Path(".run"), description="Folder of the embedded servers and of small files")
    webhook_secret_keys: MasterKeys | None = Field(
        None, description="Master keys of endpoint secrets: id:base64 of 32 bytes, comma-separated, newest first"
    )
    webhook_event_types: EventTypes = Field(
        (), description="Event types that apps may emit; empty: any well-formed one"
    )
    webhook_retry_delays: SecondsList = Field(
        (
            timedelta(seconds=30),
            timedelta(minutes=5),
            timedelta(hours=1),
            timedelta(hours=6),
            timedelta(hours=24),
        ),
        description="Seconds before attempts 2, 3, ...; five delays mean six attempts",
    )
    webhook_retry_jitter: float = Field(0.2, ge=0, le=1, description="Each delay varies by this share either way")
    webhook_throttle_floor: Seconds = Field(
        timedelta(seconds=60), description="Least delay after 429, 502, 503, 504 and time-outs"
    )
    webhook_retry_after_cap: Seconds = Field(timedelta(hours=24), description="A longer Retry-After is cut to this")
    webhook_broker_wait: Seconds = Field(
        timedelta(minutes=15), description="Longer waits stay in SQL and are enqueued by the sweeper"
    )
    webhook_connect_timeout: Timeout = Field(timedelta(seconds=5), description="Seconds to connect, TLS included")
    webhook_total_timeout: Timeout = Field(
        timedelta(seconds=15), description="Wall clock of one attempt, body included"
    )
    webhook_terminal_codes: HttpCodes = Field((), description="HTTP codes that are never retried, such as 400,422")
    webhook_allow_http: bool = Field(default=False, description="Accept http:// endpoints, not only https://")
    webhook_allow_nets: Networks = Field((), description="Subnets that may be called though they are not public")
    webhook_ca_file: Path | None = Field(None, description="Extra certificate authorities for receivers")
    webhook_max_concurrency: int = Field(10, ge=1, le=1000, description="Default requests in flight per endpoint")
    webhook_disable_after: Seconds = Field(
        timedelta(hours=120), description="An endpoint that failed for so long is disabled"
    )
    webhook_disable_exhausted: int = Field(
        5, ge=1, le=10_000, description="Consecutive exhausted deliveries that disable an endpoint"
    )
    webhook_breaker_failures: int = Field(
        10, ge=1, le=10_000, description="Consecutive failed attempts that open the circuit breaker"
    )
    webhook_breaker_open: Seconds = Field(
        timedelta(seconds=30), description="First pause of an open breaker; doubles up to 30 minutes"
    )
    webhook_sweep_interval: Interval = Field(timedelta(seconds=30), description="How often the sweeper looks")
    webhook_max_body: int = Field(262_144, ge=1, le=16_777_216, description="Bytes of one event's body at most")
    market_confirm_interval: Interval = Field(timedelta(seconds=10), description="How often predictions are confirmed")
    market_confirm_attempts: int = Field(
        3, ge=1, le=1000, description="Looks for a prediction's transaction before the prediction is failed"
    )
    market_confirm_backoff: Seconds = Field(
        timedelta(seconds=30), description="Wait before the second look; doubles with each, up to an hour"
    )
    market_dispute_recheck: Seconds = Field(
        timedelta(minutes=5), description="A resolution of a disputed market looks again after so long"
    )
    market_oracle_guard: bool = Field(default=False, description="Resolve only on agreeing, fresh price quotes")
    market_oracle_sources: int = Field(3, ge=1, le=100, description="Fresh sources that the guard asks for")
    market_oracle_max_age: Seconds = Field(timedelta(minutes=5), description="An older quote does not count")
    market_oracle_skew: Seconds = Field(
        timedelta(seconds=30), description="How far a quote's clock may run ahead of the event's"
    )
    market_oracle_deviation_bp: int = Field(
        100, ge=0, le=10_000, description="Farthest from the median that a quote may lie, in 1/10000"
    )
    market_oracle_fallback: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="A source that suffices alone when others are missing; unset: none",
    )
    reconciliation_enabled: bool = Field(default=True, description="Reconcile all markets on schedule")
    reconciliation_schedule: str = Field("0 2 * * *", description="When, as cron, in UTC")
    reconciliation_tolerance: int = Field(
        0, ge=0, description="Smallest units by which a position may differ without an alert"
    )
    reconciliation_critical_bp: int = Field(
        100, ge=1, description="Drift from this share of the larger side on is critical, in 1/10000"
    )
    reconciliation_member_timeout: Seconds = Field(
        timedelta(minutes=5), description="A market of a global run without an answer is asked again after so long"
    )
    reconciliation_deadline: Seconds = Field(
        timedelta(hours=1), description="A global run is reported after so long, with what there is"
    )
    reconciliation_sweep_interval: Interval = Field(
        timedelta(seconds=30), description="How often runs that lost a worker are looked for"
    )
    reconciliation_retention_days: int = Field(90, ge=0, le=36_500, description="Days that reports are kept; 0: all")
    chain_provider: Literal["none", "evm", "soroban"] = Field("none", description="How positions on chain are read")
    chain_rpc_url: HttpUrl | None = Field(None, description="JSON-RPC node, http or https; may hold an access key")
    chain_contract: str | None = Field(None, description="The contract: 0x... or C...")
    chain_confirmations: int = Field(
        12, ge=0, le=100_000, description="EVM: blocks behind the newest one that are taken as final"
    )
    chain_timeout: Timeout = Field(timedelta(seconds=10), description="Wall clock of one call, body included")
    chain_tries: int = Field(3, ge=1, le=20, description="Calls before a node counts as unreachable")
    chain_page_size: int = Field(200, ge=1, le=10_000, description="EVM: positions asked for in one call")
    backup_profiles: Path | None = Field(None, description="Folder of *.toml, one per database whose backups to verify")
    backup_dump_path: str | None = Field(None, description="A dump, a folder or a pattern: the profile named default")
    backup_ephemeral_db_url: SecretStr | None = Field(
        None, description="PostgreSQL server on which scratch databases are made; the one it names is only entered"
    )
    backup_live_db_urls: SecretStr | None = Field(
        None, description="Databases that must never be the scratch one, comma-separated; DATABASE_URL always is"
    )
    backup_slack_webhook_url: HttpUrl | None = Field(None, description="Where results are posted in Slack's format")
    backup_smoke_timeout_ms: Milliseconds = Field(
        timedelta(seconds=15), gt=timedelta(0), description="Milliseconds that one check's query may take"
    )
    backup_pg_bin: Path | None = Field(None, description="Folder of pg_restore and psql; unset: those of PATH")
    backup_lease: Seconds = Field(
        timedelta(seconds=60), ge=timedelta(seconds=1), description="A verification that lost its worker ends so soon"
    )


def load_settings(environ: Mapping[str, str], dotenv: Path | None = None) -> Settings:
    """
    Read and check all settings.

    Args:
        environ: Usually ``os.environ``; wins over the file.
        dotenv: A ``.env`` file, ignored when it does not exist.

    Raises:
        SettingsError: One line for each wrong value or unknown name, then the names that are known.
    """
    known = {name.upper(): name for name in Settings.model_fields}
    given = {**(dotenv_values(dotenv) if dotenv else {}), **environ}
    errors = [
        f"{name}: not a setting of Taskyard"
        for name in sorted(given)
        if name.startswith(OUR_PREFIXES) and name not in known and name not in FOREIGN_NAMES
    ]
    values: dict[str, Any] = {
        known[name]: value for name, value in given.items() if name in known and value and value.strip()
    }
    try:
        settings = Settings(**values)
    except ValidationError as error:
        errors += [
            f"{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')[:LONGEST_TEXT]}"
            for e in error.errors()
        ]
    else:
        if not errors:
            return settings
    raise SettingsError("\n".join([*errors, f"Known settings: {', '.join(sorted(known))}"]))


@lru_cache(maxsize=1)
def current_settings() -> Settings:
    """Return the settings of this process, read from its environment and ``.env`` at the first call."""
    return load_settings(os.environ, Path(".env"))
