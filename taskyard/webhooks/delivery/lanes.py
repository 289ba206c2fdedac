"""Where deliveries wait: healthy endpoints first, failing ones behind them, slow ones in a queue with few slots."""

from typing import NamedTuple

from taskyard.settings.queues import SLOW_WEBHOOKS, WEBHOOKS, PriorityName, Queue
from taskyard.webhooks.models import SLOW_AFTER, Endpoint

FAILING_AFTER = 2  # failed attempts in a row


class Lane(NamedTuple):
    """A queue, and a place in it."""

    queue: Queue
    priority: PriorityName


HEALTHY, FAILING = Lane(WEBHOOKS, "normal"), Lane(WEBHOOKS, "low")
UNPROVEN, SLOW = Lane(SLOW_WEBHOOKS, "normal"), Lane(SLOW_WEBHOOKS, "low")


def lane_of(slow_attempts: int, failures: int) -> Lane:
    """
    Return the lane of an endpoint with so many slow attempts and so many failed ones in a row.

    What holds a slot for long is bounded by slots. What only fails costs as much as a success: it waits behind the
    healthy ones, never behind endpoints that hang. One that may prove to be fast (it is new, or was fast until lately)
    goes before those that are known to be slow.
    """
    if slow_attempts > SLOW_AFTER:
        return SLOW
    if slow_attempts == SLOW_AFTER:
        return UNPROVEN
    return FAILING if failures >= FAILING_AFTER else HEALTHY


def lane_of_endpoint(endpoint: Endpoint) -> Lane:
    """As `lane_of`."""
    return lane_of(endpoint.slow_attempts, endpoint.consecutive_failures)
