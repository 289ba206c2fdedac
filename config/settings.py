"""Settings of the application's domains; those of the library are in `taskyard.settings`."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr

from taskyard.settings import HttpUrl, Interval, Milliseconds, Seconds, SettingsGroup, Timeout


class BackupSettings(SettingsGroup):
    """Where backups are, and where they are restored."""

    prefixes: ClassVar[tuple[str, ...]] = ("BACKUP_",)

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


class MarketSettings(SettingsGroup):
    """When predictions are confirmed, and which price quotes a resolution asks for."""

    prefixes: ClassVar[tuple[str, ...]] = ("MARKET_",)

    market_confirm_interval: Interval = Field(timedelta(minutes=1), description="How often predictions are confirmed")
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


class ReconciliationSettings(SettingsGroup):
    """When positions are compared with the chain, what is tolerated, and how the chain is read."""

    prefixes: ClassVar[tuple[str, ...]] = ("RECONCILIATION_", "CHAIN_")

    reconciliation_enabled: bool = Field(default=True, description="Reconcile all markets on schedule")
    reconciliation_schedule: str = Field("0 2 * * *", description="When, as cron, in UTC")
    reconciliation_tolerance: int = Field(
        0, ge=0, description="Smallest units by which a position may differ without an alert"
    )
    reconciliation_critical_bp: int = Field(
        100, ge=1, description="Drift from this share of the larger side on is critical, in 1/10000"
    )
    reconciliation_deadline: Seconds = Field(
        timedelta(hours=1), description="A global run is reported after so long, with what there is"
    )
    reconciliation_sweep_interval: Interval = Field(timedelta(hours=1), description="How often old reports are removed")
    reconciliation_retention_days: int = Field(90, ge=0, le=36_500, description="Days that reports are kept; 0: all")
    chain_provider: Literal["none", "evm", "soroban"] = Field("none", description="How positions on chain are read")
    chain_rpc_url: HttpUrl | None = Field(None, description="JSON-RPC node, http or https; may hold an access key")
    chain_contract: str | None = Field(None, description="The contract: 0x... or C...")
    chain_confirmations: int = Field(
        12, ge=0, le=100_000, description="EVM: blocks behind the newest one that are taken as final"
    )
    chain_id: int | None = Field(None, ge=1, description="EVM: id of the chain; unset: a node of any chain is read")
    chain_max_age: Seconds = Field(
        timedelta(hours=1), description="A node whose newest block or ledger is older than this is stale and not read"
    )
    chain_timeout: Timeout = Field(timedelta(seconds=10), description="Wall clock of one call, body included")
    chain_tries: int = Field(3, ge=1, le=20, description="Calls before a node counts as unreachable")
    chain_page_size: int = Field(200, ge=1, le=10_000, description="EVM: positions asked for in one call")
