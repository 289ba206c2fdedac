"""Whether a task has expired: the broker says so at hand-out, since this host's clock may be off."""

from collections.abc import Mapping
from typing import Any

from taskyard.broker.untyped import CeleryRequest


class ExpiringRequest(CeleryRequest):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Celery's request; one that our broker handed out has expired when it says so."""

    _facts: Mapping[str, Any]  # our header

    def maybe_expire(self) -> bool:
        """Whether it must not start any more."""
        expired = self._facts.get("expired")
        return bool(super().maybe_expire() if expired is None else expired)
