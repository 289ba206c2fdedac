"""Register, rotate, disable and enable endpoints; every change of their rows by a person is here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlmodel import Session, col

from taskyard.database.columns import utc_now
from taskyard.settings.platform import Settings
from taskyard.webhooks.delivery.dispatch import DueDelivery, release_waiting
from taskyard.webhooks.event_types import check_pattern
from taskyard.webhooks.http.ssrf_policy import check_url
from taskyard.webhooks.models import OPEN_STATES, Delivery, Endpoint, Secret, Subscription
from taskyard.webhooks.signing.key_vault import Vault
from taskyard.webhooks.signing.schemes import SigningSecret, new_secret, parse_secret

LONGEST_OVERLAP = timedelta(days=7)  # of two secrets in a rotation
LONGEST_RETRY_DELAY = timedelta(days=30)
LONGEST_HEADER = 4096  # characters; most servers take lines of 8190 bytes at most
SLOWEST = 0.0001  # requests per second: one in three hours
_FORBIDDEN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


class EndpointError(ValueError):
    """An endpoint's options have no meaning; nothing was written."""


class UnknownEndpointError(LookupError):
    """There is no endpoint with this id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """What an owner may choose; None takes the platform's setting."""

    description: str = ""
    sends_standard: bool = True
    sends_predictify: bool = True
    extra_headers: dict[str, str] | None = None
    max_concurrency: int | None = None  # 1-1000 requests in flight
    rate_per_second: float | None = None  # above 0
    retry_delays: tuple[timedelta, ...] | None = None  # waits between attempts
    secret: str | None = field(default=None, repr=False)  # whsec_ or whsk_; None: a new one is made


def register(
    session: Session,
    settings: Settings,
    url: str,
    patterns: Sequence[str],
    options: EndpointOptions | None = None,
) -> tuple[Endpoint, str]:
    """
    Add an endpoint; return it with its secret, which is shown here and never stored in clear.

    Raises:
        UrlRefusedError: The URL is malformed or may not be released.
        EventTypeError: A pattern is malformed or fits no known type.
        EndpointError: An option has no meaning.
        SecretFormatError: The given secret is malformed.
    """
    chosen = options or EndpointOptions()
    _check(chosen)
    checked = [check_pattern(pattern, settings.webhook_event_types) for pattern in dict.fromkeys(patterns)]
    if not checked:
        raise EndpointError("an endpoint needs at least one event filter; use * for all events")
    nets = [ip_network(net) for net in settings.webhook_allow_nets]
    endpoint = Endpoint(
        url=check_url(url, allow_http=settings.webhook_allow_http, allow_nets=nets),
        description=chosen.description,
        sends_standard=chosen.sends_standard,
        sends_predictify=chosen.sends_predictify,
        extra_headers=chosen.extra_headers,
        max_concurrency=chosen.max_concurrency,
        rate_per_second=chosen.rate_per_second,
        retry_delays=[wait.total_seconds() for wait in chosen.retry_delays] if chosen.retry_delays else None,
    )
    shown = parse_secret(chosen.secret).reveal() if chosen.secret is not None else new_secret().reveal()
    sealed = open_vault(settings).seal(shown, endpoint.id)
    session.add(endpoint)
    session.flush()  # the rows below refer to it
    session.add_all([Subscription(pattern=pattern, endpoint_id=endpoint.id) for pattern in checked])
    session.add(Secret(endpoint_id=endpoint.id, ciphertext=sealed))
    session.flush()
    return endpoint, shown


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
    Give the endpoint a new secret and return it; the old one also signs until ``overlap`` has passed.

    Raises:
        UnknownEndpointError: There is no such endpoint.
        EndpointError: The overlap is negative or longer than seven days.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise EndpointError("the overlap lies between 0 and 7 days")
    now = utc_now()
    find(session, endpoint_id).updated_at = now  # tells the workers to read the secrets again
    active = session.scalars(_active_secrets(endpoint_id, now)).all()
    for place, row in enumerate(active):  # at most two sign at once: the new one and the newest of the old
        row.expires_at = now + overlap if place == 0 else now
    fresh = new_secret().reveal()
    session.add(Secret(endpoint_id=endpoint_id, ciphertext=open_vault(settings).seal(fresh, endpoint_id)))
    session.flush()
    return fresh


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


def _check(options: EndpointOptions) -> None:
    slots, rate = options.max_concurrency, options.rate_per_second
    if slots is not None and (type(slots) is not int or not 1 <= slots <= 1000):  # noqa: PLR2004 - as documented
        raise EndpointError("max_concurrency is a whole number between 1 and 1000")
    if rate is not None and (isinstance(rate, bool) or not SLOWEST <= rate <= 10_000):  # noqa: PLR2004 - as documented
        raise EndpointError(f"rate_per_second lies between {SLOWEST:g} and 10000")
    if options.retry_delays is not None and not 1 <= len(options.retry_delays) <= 20:  # noqa: PLR2004 - a bounded list
        raise EndpointError("retry_delays has 1 to 20 entries")
    if not all(timedelta(0) <= wait <= LONGEST_RETRY_DELAY for wait in options.retry_delays or ()):
        raise EndpointError("a retry delay lies between 0 and 30 days")
    if not options.description.isprintable():
        raise EndpointError("a description is one line of printable characters")
    if not (options.sends_standard or options.sends_predictify):
        raise EndpointError("an endpoint needs at least one kind of signature headers")
    for name, value in (options.extra_headers or {}).items():
        _check_header(name, value)


def _check_header(name: str, value: str) -> None:
    lower = name.lower()
    if lower in _FORBIDDEN_HEADERS or lower.startswith(("content-", "webhook-", "x-predictify-")):
        raise EndpointError(f"header {name!r} is set by the platform")
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or not value.isprintable():
        raise EndpointError(f"header {name!r} has characters that a header must not have")
    if len(name) + len(value) > LONGEST_HEADER:
        raise EndpointError(f"header {name[:40]!r} is longer than {LONGEST_HEADER} characters: no receiver takes it")
