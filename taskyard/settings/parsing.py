"""How a setting's text becomes its value; each function takes the text or an already right value."""

import base64
import os
import re
from datetime import timedelta
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

BROKER_SCHEMES = frozenset({"redis", "rediss", "unix", "sentinel"})
POSTGRES_SCHEMES = frozenset({"postgresql", "postgres"})  # as other programs write them, without a driver
POSTGRES_DRIVER = "postgresql+psycopg"
DATABASE_SCHEMES = frozenset({"sqlite", "sqlite+pysqlite", POSTGRES_DRIVER})
MASTER_KEY_BYTES = 32
LONGEST = timedelta(days=36_500)  # what is added to or taken from today stays a date
EVENT_TYPE = re.compile(r"[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)*")


def seconds(value: Any) -> Any:
    """Read a number of seconds, at least 0."""
    return _duration(value, unit="seconds")


def milliseconds(value: Any) -> Any:
    """Read a number of milliseconds, at least 0."""
    return _duration(value, unit="milliseconds")


def csv_seconds(value: Any) -> Any:
    """Read comma-separated seconds: ``"1,2.5"`` is 1 s and 2.5 s."""
    if isinstance(value, str):
        return tuple(seconds(part) for part in csv_words(value))
    return value


def csv_words(value: Any) -> Any:
    """Read comma-separated words; empty parts do not count."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each word is a subnet such as ``10.0.0.0/8`` or ``fd00::/8``."""
    return tuple(str(ip_network(word)) for word in value)


def http_codes(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each word is the status of an HTTP answer."""
    for word in value:
        if not (word.isascii() and word.isdigit() and 100 <= int(word) <= 599):  # noqa: PLR2004 - RFC 9110, 15
            raise ValueError(f"{word!r} is no HTTP status from 100 to 599")
    return value


def event_types(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that each word is a type, as apps may emit them; a pattern such as `market.*` would fit none."""
    for word in value:
        if EVENT_TYPE.fullmatch(word) is None:
            raise ValueError(f"{word[:80]!r} is no event type: use words of a-z, 0-9 and _ separated by full stops")
    return value


def bearer_token(value: SecretStr) -> SecretStr:
    """Check that it can travel in a header; the text does not repeat it."""
    text = value.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("use printable ASCII characters without spaces")
    return value


def master_keys(value: SecretStr) -> SecretStr:
    """Check each key's form; the text names a wrong one by its place, never by what it holds."""
    entries = csv_words(value.get_secret_value())
    if not entries:
        raise ValueError("holds no key; make one: celery -A tasks webhooks new-key")
    for place, entry in enumerate(entries, start=1):
        if not _is_master_key(entry):
            raise ValueError(f"key {place} is not id:base64 of 32 bytes; make one: celery -A tasks webhooks new-key")
    return value


def broker_url(value: str) -> str:
    """Check what redis-py and kombu would read differently, or only when they connect; the text may hold a password."""
    for part in value.partition("?")[0].split(";"):
        if not _is_broker_url(part):
            raise ValueError("not a broker's URL; use redis://host:6379/0, or rediss, unix or sentinel before ://")
    return value


def database_url(value: str) -> str:
    """Check what is known without the server, and name the driver; the text may hold a password: not repeated."""
    scheme, colon, rest = value.partition("://")
    if scheme in POSTGRES_SCHEMES:
        scheme, value = POSTGRES_DRIVER, f"{POSTGRES_DRIVER}://{rest}"
    is_file = scheme.startswith("sqlite")
    if scheme not in DATABASE_SCHEMES or not colon or (is_file and rest and not rest.startswith("/")):
        raise ValueError("not a database's URL; use sqlite:///file or postgresql://user:password@host/database")
    return value


def http_url(value: SecretStr) -> SecretStr:
    """Check that it is a URL with a host, so that a request can be made; it may hold a key, so it is not repeated."""
    text = value.get_secret_value()
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_url = False
    if not is_url or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("not a URL; use https://host/path, or http")
    return value


def lower_case(value: Any) -> Any:
    """Read a word in any case."""
    return value.lower() if isinstance(value, str) else value


def worker_count(value: Any) -> Any:
    """Read a number, or ``cpus`` for one process per core."""
    return (os.cpu_count() or 1) if value == "cpus" else value


def _is_master_key(entry: str) -> bool:
    key_id, _, encoded = entry.partition(":")
    try:
        return bool(key_id) and len(base64.b64decode(encoded, validate=True)) == MASTER_KEY_BYTES
    except ValueError:
        return False


def _is_broker_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port  # raises when it is no port
    except ValueError:
        return False
    if parts.scheme not in BROKER_SCHEMES or port == 0 or any(character.isspace() for character in text):
        return False
    database = parts.path.strip("/")
    return parts.scheme == "unix" or not database or (database.isascii() and database.isdigit())


def _duration(value: Any, *, unit: str) -> Any:
    if isinstance(value, timedelta):
        return value
    try:
        duration = timedelta(**{unit: float(value)})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"must be a number of {unit}") from error
    if duration < timedelta(0):
        raise ValueError(f"must be a number of {unit}, at least 0")
    if duration > LONGEST:
        raise ValueError(f"must be a number of {unit}, at most {LONGEST.days} days")
    return duration
