"""When predictions are confirmed."""

from collections.abc import Iterator
from typing import Any

from beat.timetable import confirm_predictions
from tasks.markets.payloads import ConfirmPredictions
from tasks.markets.tasks import confirm
from taskyard.beat import Entry


def entries() -> Iterator[Entry[Any]]:
    """A look at all that is pending, so that a slot that was missed is no loss."""
    yield Entry(
        "markets.confirm",
        confirm,
        ConfirmPredictions(),
        confirm_predictions(),
        misfire="skip",
        overlap="skip",
        note="Looks for the transactions of pending predictions",
    )
