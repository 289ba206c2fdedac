"""The three receivers of the demo, and an independent check of every request that they got."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from standardwebhooks import Webhook, WebhookVerificationError

from scripts.standins.receiver import Captured, Decide, Receiver

FAILURES = 2  # per message, of the receiver that fails at first


@dataclass(slots=True)
class Subscriber:
    """A receiver as an endpoint of the platform."""

    name: str
    receiver: Receiver
    patterns: tuple[str, ...]  # what it subscribes to; each of the three wants all events of the feed, in other words
    endpoint_id: str = ""  # set when it is registered
    secret: str = field(default="", repr=False)

    def first_receipts(self) -> dict[str, datetime]:
        """Return when the first request of each message came, by `webhook-id`."""
        first: dict[str, datetime] = {}
        for request in self.receiver.requests:
            first.setdefault(request.webhook_id, request.received_at)
        return first

    def bad_signatures(self) -> list[str]:
        """Return what the package `standardwebhooks` finds wrong with the requests; empty: all are genuine."""
        webhook = Webhook(self.secret)
        return [fault for request in self.receiver.requests if (fault := _fault(webhook, request))]


def three_subscribers() -> tuple[Subscriber, Subscriber, Subscriber]:
    """Make the good one, the one that fails twice for each message, and the one that is always down; not started."""
    types = ("market.created", "market.order_matched", "market.price_moved", "market.resolved")
    return (
        Subscriber("good", Receiver(), ("*",)),
        Subscriber("fails twice", Receiver(_fails_at_first()), ("market.*",)),
        Subscriber("always down", Receiver(lambda _request: 503), types),
    )


def _fails_at_first() -> Decide:
    seen: Counter[str] = Counter()

    def decide(request: Captured) -> int:
        seen[request.webhook_id] += 1
        return 500 if seen[request.webhook_id] <= FAILURES else 200

    return decide


def _fault(webhook: Webhook, request: Captured) -> str | None:
    headers: Mapping[str, str] = {name.lower(): value for name, value in request.headers.items()}
    try:
        webhook.verify(request.body, dict(headers))
    except WebhookVerificationError as error:
        return f"{request.webhook_id}: {error}"
    return None
