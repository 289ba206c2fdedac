"""What `doctor` and readiness say of webhooks: whether requests can be signed, if there is anybody to send to."""

from collections.abc import Iterator

from sqlalchemy import Engine
from sqlmodel import Session, select

from taskyard.database.engine import current_engine
from taskyard.findings import Finding
from taskyard.settings.loading import current_settings
from taskyard.settings.platform import Settings
from taskyard.webhooks.models import Endpoint

MISSING = "WEBHOOK_SECRET_KEYS is not set: requests to the endpoints cannot be signed"
REMEDY = "set the keys that the endpoints' secrets were stored with, for workers too"


def missing_keys(engine: Engine, settings: Settings) -> str:
    """Return what is missing to send to the endpoints that there are; empty: nothing."""
    if settings.webhook_secret_keys is not None:
        return ""
    with Session(engine) as session:
        is_used = session.exec(select(Endpoint.id).limit(1)).first() is not None
    return MISSING if is_used else ""


def findings() -> Iterator[Finding]:
    """Look for endpoints without the keys that sign for them."""
    missing = missing_keys(current_engine(), current_settings())
    if missing:
        yield Finding("webhook keys", "fault", missing, REMEDY)
    elif current_settings().webhook_secret_keys is None:
        yield Finding("webhook keys", "ok", "not set, and no endpoint needs them")
    else:
        yield Finding("webhook keys", "ok", "set")
