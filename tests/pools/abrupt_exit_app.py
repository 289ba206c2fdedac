"""For a worker only: it is told to end when it hears of the first of the handlers that have started."""

import os
import signal
from typing import Any

from taskyard.broker.worker.request import PlatformRequest
from tests.pools.app import app, records
from tests.pools.odd_errors_app import STARTS, occupy
from tests.waiting import wait_for

__all__ = ["app", "occupy"]  # `celery -A` looks for the app here

_celerys = PlatformRequest.on_accepted
_is_told: list[bool] = []


def _on_accepted(self: Any, pid: int, time_accepted: float) -> None:
    if not _is_told:
        _is_told.append(True)
        wait_for(lambda: records.llen("notes") >= STARTS, 60, "all have started")
        os.kill(os.getpid(), signal.SIGTERM)
    _celerys(self, pid, time_accepted)


setattr(PlatformRequest, "on_accepted", _on_accepted)  # noqa: B010 - a method for a method
