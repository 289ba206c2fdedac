"""The library's settings; those of domains are groups of their own (see :mod:`taskyard.settings.loading`)."""

import os
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from taskyard.settings.group import SettingsGroup
from taskyard.settings.types import (
    BeatAhead,
    BeatLease,
    BrokerUrl,
    DatabaseUrl,
    EventTypes,
    HttpCodes,
    Interval,
    LogFormat,
    LogLevel,
    MasterKeys,
    Milliseconds,
    Networks,
    Seconds,
    SecondsList,
    Timeout,
    Token,
    WorkerCount,
)


class Settings(SettingsGroup):
    """The settings of the library itself."""

    prefixes: ClassVar[tuple[str, ...]] = ("AUDIT_", "BEAT_", "METRICS_", "TASKYARD_", "WEBHOOK_", "WORKER_")

    redis_url: BrokerUrl = Field(
        "redis://localhost:6379/0", description="Broker, results, locks: redis, rediss, unix or sentinel URL"
    )
    database_url: DatabaseUrl = Field("sqlite:///taskyard.db", description="postgresql://... in production")
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
        5,
        ge=0,
        le=1000,
        description="up: restarts in a row, each soon after the last, before a process is restarted only every minute",
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
    log_level: LogLevel = Field("info", description="Lowest level that is logged: debug, info, warning, error")
    log_format: LogFormat = Field("auto", description="auto: console on a terminal, else json")
    metrics_port: int | None = Field(None, ge=1, le=65_535, description="Prometheus text on this port; unset: off")
    metrics_address: str = Field(
        "127.0.0.1", description="Address of METRICS_PORT; 0.0.0.0 or :: for scrapers and probes from other hosts"
    )
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
    taskyard_schema: str | None = Field(
        None,
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="PostgreSQL schema of the library's tables; unset: where the search path leads",
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
    webhook_sweep_interval: Interval = Field(timedelta(minutes=1), description="How often the sweeper looks")
    webhook_event_retention_days: int = Field(
        30, ge=0, le=36_500, description="Days that events without deliveries are kept; 0 keeps all"
    )
    webhook_delivery_retention_days: int = Field(
        30, ge=0, le=36_500, description="Days that delivered and exhausted deliveries are kept; 0 keeps all"
    )
    webhook_attempt_retention_days: int = Field(30, ge=0, le=36_500, description="Days that attempts are kept; 0: all")
    webhook_excerpt_retention_days: int = Field(
        7, ge=0, le=36_500, description="Days that excerpts of answers are kept; 0 keeps all"
    )
    flow_sweep_interval: Interval = Field(
        timedelta(minutes=1), description="How often lost steps and deadlines of flows are looked for"
    )
    webhook_max_body: int = Field(262_144, ge=1, le=16_777_216, description="Bytes of one event's body at most")
