"""The platform of this process: it claims the broker at the start, and does so again after the broker was flushed."""

import threading
from collections.abc import Callable

import structlog
from redis import RedisError

from taskyard.broker.server.client import shared_client
from taskyard.broker.server.ownership import OtherPlatformError, Platform, claim
from taskyard.database.identity import database_name, identity_of
from taskyard.settings.loading import current_settings
from taskyard.tasks.current_app import current_app

CLAIM_EVERY = 10.0  # seconds; a broker that was flushed is nobody's for so long
log = structlog.get_logger(__name__)


def own_platform() -> Platform | None:
    """Return the platform of this process; None: its database does not answer, or was not migrated."""
    settings = current_settings()
    identity = identity_of(settings.database_url, settings.taskyard_schema)
    if identity is None:
        return None
    return Platform(str(identity), f"app {current_app().main!r} with {database_name(settings.database_url)}")


def claim_broker(url: str | None = None) -> None:
    """
    Make the broker's keys this platform's; while database or broker do not answer, that is left to `PlatformGuard`.

    Args:
        url: Of the broker; None: as the settings say.

    Raises:
        OtherPlatformError: They are another's.
    """
    own, settings = own_platform(), current_settings()
    if own is None:
        return
    try:
        claim(shared_client(url or settings.redis_url), settings.taskyard_key_prefix, own)
    except RedisError as error:
        log.info("platform.claim_postponed", error=str(error))


class PlatformGuard(threading.Thread):
    """Claims the broker again and again, and reports once that it has become another platform's."""

    def __init__(self, on_other: Callable[[], None]) -> None:
        """`on_other` is called in this thread, and ends the process's work."""
        super().__init__(name="platform-guard", daemon=True)
        self._on_other = on_other
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._ended.wait(CLAIM_EVERY):
            try:
                claim_broker()
            except OtherPlatformError as error:
                log.error("platform.other", error=str(error))  # noqa: TRY400 - one line; the trace says nothing
                self._on_other()
                return

    def stop(self) -> None:
        """End soon."""
        self._ended.set()
