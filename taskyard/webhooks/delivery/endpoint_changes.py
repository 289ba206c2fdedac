"""Change an endpoint: what is given is checked as at its registration; nothing else changes."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import delete, select
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.endpoint_options import EndpointError, EndpointOptions, check_options, sends_predictify
from taskyard.webhooks.delivery.endpoints import active_secrets, find, open_headers, open_vault, seal_headers
from taskyard.webhooks.event_types import check_pattern
from taskyard.webhooks.http.ssrf_policy import check_url
from taskyard.webhooks.models import SLOW_AFTER, Endpoint, Subscription
from taskyard.webhooks.signing.key_vault import Vault
from taskyard.webhooks.signing.schemes import PrivateKey, SymmetricSecret

OPTIONS = ("description", "sends_standard", "sends_predictify", "max_concurrency", "rate_per_second")


class EndpointChanges(TypedDict, total=False):
    """What to change; None takes the platform's setting, or removes the headers."""

    url: str
    patterns: Sequence[str]
    description: str
    sends_standard: bool
    sends_predictify: bool
    extra_headers: dict[str, str] | None
    max_concurrency: int | None
    rate_per_second: float | None
    retry_delays: tuple[timedelta, ...] | None


def edit(session: Session, settings: Settings, endpoint_id: UUID, changes: EndpointChanges) -> dict[str, list[Any]]:
    """
    Change an endpoint in the caller's transaction; return old and new value of what changed, of headers the names.

    Another URL is another receiver: pauses and the record of failures are cleared with it.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        UrlRefusedError, EventTypeError, EndpointError: A value has no meaning; nothing was written.
        SealedSecretError: The endpoint's secrets or headers do not open with the master keys that are set.
    """
    endpoint = find(session, endpoint_id)
    vault = open_vault(settings)
    _check(session, vault, endpoint, changes)
    before = _facts(session, endpoint)
    if "url" in changes:
        nets = [ip_network(net) for net in settings.webhook_allow_nets]
        _move(endpoint, check_url(changes["url"], allow_http=settings.webhook_allow_http, allow_nets=nets))
    if "patterns" in changes:
        known = settings.webhook_event_types
        _subscribe(session, endpoint.id, [check_pattern(pattern, known) for pattern in changes["patterns"]])
    _set_options(vault, endpoint, changes)
    endpoint.updated_at = utc_now()  # tells the workers to read the headers again
    session.add(endpoint)
    session.flush()
    after = _facts(session, endpoint)
    changed = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
    if "extra_headers" in changes:  # the names may be the same, and the values may not
        changed["header_names"] = [before["header_names"], after["header_names"]]
    return changed


def _check(session: Session, vault: Vault, endpoint: Endpoint, changes: EndpointChanges) -> None:
    present: dict[str, Any] = {name: getattr(endpoint, name) for name in OPTIONS}
    present["extra_headers"] = open_headers(vault, endpoint) or None
    chosen = {**present, **{name: value for name, value in changes.items() if name not in {"url", "patterns"}}}
    options = EndpointOptions(**chosen)
    check_options(options)
    secrets = [secret for secret, _ in active_secrets(session, vault, endpoint.id, utc_now())]
    for secret in secrets:
        if isinstance(secret, SymmetricSecret | PrivateKey):
            sends_predictify(options, secret)
    if "patterns" in changes and not changes["patterns"]:
        raise EndpointError("an endpoint needs at least one event filter; use * for all events")


def _set_options(vault: Vault, endpoint: Endpoint, changes: EndpointChanges) -> None:
    for name in OPTIONS:
        if name in changes:
            setattr(endpoint, name, changes[name])  # type: ignore[literal-required]  # a name of OPTIONS
    if "retry_delays" in changes:
        delays = changes["retry_delays"]
        endpoint.retry_delays = [wait.total_seconds() for wait in delays] if delays else None
    if "extra_headers" in changes:
        seal_headers(vault, endpoint, changes["extra_headers"])


def _move(endpoint: Endpoint, url: str) -> None:
    if url == endpoint.url:
        return
    endpoint.url = url
    endpoint.slow_attempts = SLOW_AFTER
    endpoint.paused_until = endpoint.failing_since = None
    endpoint.consecutive_failures = endpoint.consecutive_exhausted = endpoint.breaker_openings = 0


def _subscribe(session: Session, endpoint_id: UUID, patterns: Sequence[str]) -> None:
    session.execute(delete(Subscription).where(col(Subscription.endpoint_id) == endpoint_id))
    session.add_all([Subscription(pattern=pattern, endpoint_id=endpoint_id) for pattern in dict.fromkeys(patterns)])


def _facts(session: Session, endpoint: Endpoint) -> dict[str, Any]:
    query = select(col(Subscription.pattern)).where(col(Subscription.endpoint_id) == endpoint.id)
    facts = {name: getattr(endpoint, name) for name in ("url", *OPTIONS, "retry_delays", "header_names")}
    return {**facts, "patterns": sorted(session.scalars(query))}
