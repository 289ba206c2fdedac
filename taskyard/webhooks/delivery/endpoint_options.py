"""What an endpoint's owner may choose, and which choices make sense."""

from dataclasses import dataclass, field
from datetime import timedelta

from taskyard.webhooks.signing.schemes import (
    PrivateKey,
    SymmetricSecret,
    new_private_key,
    new_secret,
    parse_secret,
)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """What an owner may choose; None takes the platform's setting."""

    description: str = ""
    sends_standard: bool = True
    sends_predictify: bool | None = None  # None: with a shared secret; an Ed25519 key cannot make these headers
    extra_headers: dict[str, str] | None = None
    max_concurrency: int | None = None  # 1-1000 requests in flight
    rate_per_second: float | None = None  # above 0
    retry_delays: tuple[timedelta, ...] | None = None  # waits between attempts
    uses_ed25519: bool = False  # make an Ed25519 key pair (v1a) instead of a shared secret (v1)
    secret: str | None = field(default=None, repr=False)  # whsec_ or whsk_; None: a new one is made


def secret_of(options: EndpointOptions) -> SymmetricSecret | PrivateKey:
    """
    Return the given secret, or a new one of the chosen kind.

    Raises:
        SecretFormatError: The given secret is malformed.
        EndpointError: It is not of the chosen kind.
    """
    if options.secret is None:
        return new_private_key() if options.uses_ed25519 else new_secret()
    secret = parse_secret(options.secret)
    if options.uses_ed25519 and not isinstance(secret, PrivateKey):
        raise EndpointError("the given secret is no Ed25519 key: it must start with whsk_")
    return secret


def sends_predictify(options: EndpointOptions, secret: SymmetricSecret | PrivateKey) -> bool:
    """
    Return whether X-Predictify headers are sent; every request must carry a signature that its receiver can verify.

    Raises:
        EndpointError: The chosen headers cannot be signed with this secret.
    """
    is_shared = isinstance(secret, SymmetricSecret)
    if options.sends_predictify and not is_shared:
        raise EndpointError("X-Predictify headers need a shared secret (whsec_), not an Ed25519 key")
    if not options.sends_standard and not is_shared:
        raise EndpointError(
            "without Standard Webhooks headers an Ed25519 key signs nothing: requests would be unsigned"
        )
    return is_shared if options.sends_predictify is None else options.sends_predictify


def check_options(options: EndpointOptions) -> None:
    """
    Check every other option.

    Raises:
        EndpointError: One has no meaning.
    """
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
    if not options.sends_standard and options.sends_predictify is False:
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
