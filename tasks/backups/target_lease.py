"""Renew a lease during the work, and notice when it is lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tasks.backups.store import TargetLease

RENEWALS = 3  # in the time of one lease
STOP_LIMIT = 5  # seconds that the end of the work waits for a renewal under way

log = structlog.stdlib.get_logger(__name__)


class LeaseRenewer(Protocol):
    """What renewing a lease needs of the store."""

    def renew(self, lease: TargetLease) -> bool:
        """Extend the lease; return False when it was lost."""

    def release(self, lease: TargetLease) -> None:
        """Release the lease."""


class LeaseGuard:
    """Tells whether the lease is still ours."""

    def __init__(self) -> None:
        self._is_lost = threading.Event()
        self.ends = threading.Event()

    def holds(self) -> bool:
        """Return whether the lease is still ours."""
        return not self._is_lost.is_set()

    def lose(self) -> None:
        """Mark the lease as lost."""
        self._is_lost.set()


@contextmanager
def renewing_lease(store: LeaseRenewer, lease: TargetLease, length: float) -> Iterator[LeaseGuard]:
    """
    Renew the lease from a thread until the block ends, then give it back.

    A database that is down does not end the work: the lease then runs out by itself, and the next renewal that
    reaches the database says whether somebody else took it.

    Args:
        store: Renews and releases.
        lease: What was taken.
        length: Seconds that the lease holds after each renewal.
    """
    guard = LeaseGuard()

    def renew() -> None:
        while guard.holds() and not guard.ends.wait(length / RENEWALS):
            try:
                if not store.renew(lease):
                    guard.lose()
                    log.warning("backup.lease_lost", target=lease.target)
            except SQLAlchemyError as error:
                log.warning("backup.lease_not_renewed", target=lease.target, error=type(error).__name__)

    thread = threading.Thread(target=renew, name=f"backup-lease-{lease.target}", daemon=True)
    thread.start()
    try:
        yield guard
    finally:
        guard.ends.set()
        thread.join(STOP_LIMIT)
        try:
            store.release(lease)
        except SQLAlchemyError as error:  # it runs out by itself; the outcome of the work stands
            log.warning("backup.lease_not_released", target=lease.target, error=type(error).__name__)
