"""Checks of `doctor` for the broker: whose it is, and whether its clock and the database's agree with this host's."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from taskyard.broker.server.clock_check import SKEW
from taskyard.broker.server.ownership import owner_of
from taskyard.findings import Finding
from taskyard.tasks.platform_identity import own_platform


def check_owner_of_keys(client: Redis, prefix: str) -> Iterator[Finding]:
    """Report a broker whose keys under our prefix belong to another platform."""
    own, owner = own_platform(), owner_of(client, prefix)
    if own is None:
        fix = "check DATABASE_URL; celery -A tasks db upgrade"
        yield Finding("platform", "warning", "the database does not say which platform it belongs to", fix)
    elif owner is None:
        fix = "start a worker, beat or up: they claim the broker"
        yield Finding("platform", "warning", f"no platform has claimed the keys under {prefix!r}", fix)
    elif owner.id != own.id:
        fix = "give one of them a TASKYARD_KEY_PREFIX of its own; if the other is gone: celery -A tasks db adopt-broker"
        yield Finding("platform", "fault", f"keys under {prefix!r} belong to {owner.name}, not to {own.name}", fix)
    else:
        yield Finding("platform", "ok", f"keys under {prefix!r} belong to {own.name}")


def check_broker_clock(client: Any) -> Iterator[Finding]:
    """Report a broker whose clock is off."""
    seconds, micros = client.time()
    yield clock_finding("broker clock", datetime.fromtimestamp(seconds + micros / 1_000_000, UTC))


def clock_finding(name: str, there: datetime) -> Finding:
    """Compare the clock of a server with that of this host."""
    skew = abs(datetime.now(UTC) - there.astimezone(UTC))
    if skew <= SKEW:
        return Finding(name, "ok", "in sync with this host")
    return Finding(
        name, "warning", f"differs from this host by {skew.total_seconds():.1f} s", "synchronize both hosts with NTP"
    )
