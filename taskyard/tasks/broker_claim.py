"""A worker claims the broker before it starts, and ends when the broker becomes another platform's."""

from typing import Any

from celery import bootsteps
from celery.worker import state

from taskyard.tasks.platform_identity import PlatformGuard, claim_broker

FAILED = 1  # exit code


class BrokerClaim(bootsteps.StartStopStep):
    """Starts after the pool, so that its processes are forked before our thread exists."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        """
        Claim the broker before anything is started.

        Raises:
            OtherPlatformError: It is another platform's.
        """
        super().__init__(parent, **options)
        claim_broker()
        self._guard = PlatformGuard(_end_worker)

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Go on claiming it."""
        self._guard.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop that."""
        self._guard.stop()

    terminate = stop


def _end_worker() -> None:
    state.should_stop = FAILED  # type: ignore[assignment]  # the stubs know None only
