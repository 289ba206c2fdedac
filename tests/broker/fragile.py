"""The test app in a worker whose loop fails when the test says so, as by a fault of Celery's or ours."""

from typing import Any

from celery.signals import worker_ready

from tests.broker.app import app as app  # noqa: PLC0414 - what `celery -A` looks for
from tests.broker.app import records


def _fail_if_told() -> None:
    if records.exists("break"):
        raise ValueError("a fault in the worker itself")


@worker_ready.connect(weak=False)
def _add_the_fault(sender: Any, **_: Any) -> None:
    sender.hub.on_tick.add(_fail_if_told)
