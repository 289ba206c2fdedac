"""Register, rotate, disable and enable endpoints; every change of their rows by a person is here."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.dispatch import DueDelivery, release_waiting
from taskyard.webhooks.delivery.endpoint_options import (
    EndpointError,
    EndpointOptions,
    check_options,
    secret_of,
    sends_predictify,
)
from taskyard.webhooks.event_types import check_pattern
from taskyard.webhooks.http.ssrf_policy import check_url
from taskyard.webhooks.models import OPEN_STATES, Delivery, Endpoint, Secret, Subscription
from taskyard.webhooks.signing.key_vault import Vault
from taskyard.webhooks.signing.schemes import PrivateKey, SigningSecret, new_private_key, new_secret, parse_secret

__all__ = ["EndpointError", "EndpointOptions", "UnknownEndpointError"]

LONGEST_OVERLAP = timedelta(days=7)  # of two secrets in a rotation


class UnknownEndpointError(LookupError):
    """There is no endpoint with this id."""


def register(
    session: Session,
    settings: Settings,
    url: str,
    patterns: Sequence[str],
    options: EndpointOptions | None = None,
) -> tuple[Endpoint, str]:
    """
    Add an endpoint; return it with what its receiver verifies with.

    That is the shared secret (``whsec_``), which is not shown again and never stored in clear, or the public Ed25519
    key (``whpk_``).

    Raises:
        UrlRefusedError: The URL is malformed or may not be called.
        EventTypeError: A pattern is malformed or fits no known type.
        EndpointError: An option has no meaning.
        SecretFormatError: The given secret is malformed.
    """
    chosen = options or EndpointOptions()
    secret = secret_of(chosen)
    shows_predictify = sends_predictify(chosen, secret)
    check_options(chosen)
    checked = [check_pattern(pattern, settings.webhook_event_types) for pattern in dict.fromkeys(patterns)]
    if not checked:
        raise EndpointError("an endpoint needs at least one event filter; use * for all events")
    nets = [ip_network(net) for net in settings.webhook_allow_nets]
    endpoint = Endpoint(
        url=check_url(url, allow_http=settings.webhook_allow_http, allow_nets=nets),
        description=chosen.description,
        sends_standard=chosen.sends_standard,
        sends_predictify=shows_predictify,
        max_concurrency=chosen.max_concurrency,
        rate_per_second=chosen.rate_per_second,
        retry_delays=[wait.total_seconds() for wait in chosen.retry_delays] if chosen.retry_delays else None,
    )
    vault = open_vault(settings)
    sealed = vault.seal(secret.reveal(), endpoint.id)
    seal_headers(vault, endpoint, chosen.extra_headers)
    session.add(endpoint)
    session.flush()  # the rows below refer to it
    session.add_all([Subscription(pattern=pattern, endpoint_id=endpoint.id) for pattern in checked])
    session.add(Secret(endpoint_id=endpoint.id, ciphertext=sealed))
    session.flush()
    return endpoint, secret.receiver_key()


def find(session: Session, endpoint_id: UUID) -> Endpoint:
    """
    Return the endpoint.

    Raises:
        UnknownEndpointError: There is none.
    """
    endpoint = session.get(Endpoint, endpoint_id)
    if endpoint is None:
        raise UnknownEndpointError(f"no endpoint {endpoint_id}")
    return endpoint


def rotate_secret(session: Session, settings: Settings, endpoint_id: UUID, overlap: timedelta) -> str:
    """
    Give the endpoint a new secret of the same kind; the old one also signs until ``overlap`` has passed.

    Returns what the receiver verifies with: the new shared secret, or the new public key.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        EndpointError: The overlap is negative or longer than seven days.
        SealedSecretError: The present secret cannot be decrypted, so its kind is unknown.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise EndpointError("the overlap lies between 0 and 7 days")
    now = utc_now()
    find(session, endpoint_id).updated_at = now  # tells the workers to read the secrets again
    active = session.scalars(_active_secrets(endpoint_id, now)).all()
    vault = open_vault(settings)
    newest = parse_secret(vault.open(active[0].ciphertext, endpoint_id)) if active else None
    for place, row in enumerate(active):  # at most two sign at once: the new one and the newest of the old
        row.expires_at = now + overlap if place == 0 else now
    fresh = new_private_key() if isinstance(newest, PrivateKey) else new_secret()
    session.add(Secret(endpoint_id=endpoint_id, ciphertext=vault.seal(fresh.reveal(), endpoint_id)))
    session.flush()
    return fresh.receiver_key()


def active_secrets(
    session: Session, vault: Vault, endpoint_id: UUID, now: datetime
) -> list[tuple[SigningSecret, datetime | None]]:
    """Return the secrets that sign now, newest first, each with its expiry (None: never)."""
    rows = session.scalars(_active_secrets(endpoint_id, now)).all()
    return [(parse_secret(vault.open(row.ciphertext, endpoint_id)), row.expires_at) for row in rows]


def disable(session: Session, endpoint: Endpoint, reason: str) -> int:
    """Stop sending to the endpoint and park its open deliveries; return how many were parked."""
    endpoint.enabled = False
    endpoint.disabled_reason = reason
    endpoint.disabled_at = endpoint.updated_at = utc_now()
    session.add(endpoint)
    parked = session.execute(
        update(Delivery)
        .where(col(Delivery.endpoint_id) == endpoint.id, col(Delivery.state).in_(OPEN_STATES))
        .values(state="parked", next_attempt_at=None, enqueued_at=None, slot_reserved=False)
        .returning(col(Delivery.id))
    )
    return len(parked.all())


def enable(session: Session, endpoint: Endpoint, settings: Settings) -> tuple[int, list[DueDelivery]]:
    """
    Start sending again with a clean health record.

    Returns:
        How many parked deliveries are due now; and those of them to enqueue, as many as the endpoint has slots, which
        release the others when they are done.
    """
    now = utc_now()
    endpoint.enabled = True
    endpoint.disabled_reason = endpoint.disabled_at = endpoint.paused_until = endpoint.failing_since = None
    endpoint.consecutive_failures = endpoint.consecutive_exhausted = endpoint.breaker_openings = 0
    endpoint.updated_at = now
    session.add(endpoint)
    session.flush()  # locks the row
    released = session.execute(
        update(Delivery)
        .where(col(Delivery.endpoint_id) == endpoint.id, col(Delivery.state) == "parked")
        .values(state="retrying", next_attempt_at=now, enqueued_at=None)
        .returning(col(Delivery.id))
    )
    return len(released.all()), release_waiting(session, [endpoint], settings, now).get(endpoint.id, [])


def remove(session: Session, endpoint_id: UUID) -> None:
    """
    Delete an endpoint that has no deliveries.

    Raises:
        UnknownEndpointError: There is none.
        EndpointError: It has deliveries; disable it, so that its history stays.
    """
    find(session, endpoint_id)
    count = session.scalar(select(func.count()).where(col(Delivery.endpoint_id) == endpoint_id))
    if count:
        raise EndpointError(f"endpoint {endpoint_id} has {count} deliveries; disable it instead, so that they stay")
    session.execute(delete(Endpoint).where(col(Endpoint.id) == endpoint_id))


def seal_headers(vault: Vault, endpoint: Endpoint, headers: dict[str, str] | None) -> None:
    """Store the endpoint's extra headers: names in clear, names and values encrypted."""
    endpoint.header_names = sorted(headers) if headers else None
    endpoint.sealed_headers = vault.seal(json.dumps(headers), endpoint.id) if headers else None


def open_headers(vault: Vault, endpoint: Endpoint) -> dict[str, str]:
    """
    Return the endpoint's extra headers.

    Raises:
        SealedSecretError: They do not open with the master keys that are set.
    """
    if endpoint.sealed_headers is None:
        return {}
    headers: dict[str, str] = json.loads(vault.open(endpoint.sealed_headers, endpoint.id))
    return headers


def open_vault(settings: Settings) -> Vault:
    """
    Return the vault of endpoint secrets.

    Raises:
        EndpointError: The setting WEBHOOK_SECRET_KEYS is missing.
    """
    if settings.webhook_secret_keys is None:
        raise EndpointError(
            "WEBHOOK_SECRET_KEYS is not set: endpoint secrets are stored encrypted; "
            "make a key with `celery -A tasks webhooks new-key`"
        )
    return Vault.from_text(settings.webhook_secret_keys.get_secret_value())


def _active_secrets(endpoint_id: UUID, now: datetime) -> Select[Secret]:
    return (
        select(Secret)
        .where(
            col(Secret.endpoint_id) == endpoint_id,
            col(Secret.expires_at).is_(None) | (col(Secret.expires_at) > now),
        )
        .order_by(col(Secret.created_at).desc())
    )
