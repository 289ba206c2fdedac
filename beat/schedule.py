"""The timetable: every schedule that code owns. A name is its identity; changing a line changes the schedule."""

from typing import Any

from beat.entries import Entry, every
from config.settings import Settings
from tasks.webhooks.payloads import SweepWebhooks
from tasks.webhooks.tasks import sweep


def timetable(settings: Settings) -> tuple[Entry[Any], ...]:
    """Return the entries of this platform under these settings."""
    return (
        Entry(
            "webhooks.sweep",
            sweep,
            SweepWebhooks(),
            every(settings.webhook_sweep_interval),
            misfire="skip",  # it looks at all that is due, so a sweep that was missed is not missed
            note="Enqueues deliveries that are due, and takes back leases that ran out",
        ),
    )
