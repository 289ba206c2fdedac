"""kombu's bookkeeping of one channel's deliveries, by leases."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import redis

from taskyard.broker.protocol.outcomes import BrokerLease, Completed, Outcome, rejection
from taskyard.broker.untyped import VirtualQoS

if TYPE_CHECKING:
    from taskyard.broker.leases.manager import LeaseManager

NO_LEASE = ":0"  # ends the delivery tag of a message that needs no acknowledgement
log = logging.getLogger(__name__)


class LeasingChannel(Protocol):
    """What the bookkeeping needs of its channel."""

    leases: LeaseManager
    taken: dict[str, BrokerLease]  # handed out by the server, not yet seen by the QoS

    @property
    def has_loop(self) -> bool:
        """Whether a worker's loop sends outcomes; without one, each takes effect at once."""


class QoS(VirtualQoS):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """
    Acknowledgement and prefetch of one channel.

    Messages of earlier channels of this process that are still being worked on count as prefetched: a reconnect
    opens no second set of slots.
    """

    channel: LeasingChannel
    restore_at_shutdown = True

    def can_consume(self) -> bool:
        """Whether one more message may be taken."""
        return self.prefetch_count == 0 or self.free_slots() > 0

    def free_slots(self) -> int:
        """How many more messages the prefetch limit allows; a large number without a limit."""
        if not self.prefetch_count:
            return 1 << 20
        taken = len(self._delivered) - len(self._dirty) + len(self.channel.leases.orphans)
        return max(0, int(self.prefetch_count) - taken)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Add a message that was just taken."""
        self.channel.taken.pop(delivery_tag, None)
        super().append(message, delivery_tag)

    def settle(self, delivery_tag: str, outcome: Outcome) -> None:
        """End the lease with the next batch, and free its slot."""
        self.channel.taken.pop(delivery_tag, None)
        self.channel.leases.settle(delivery_tag, outcome)
        if delivery_tag in self._delivered:
            self._quick_ack(delivery_tag)
        if not self.channel.has_loop:  # nobody else sends it soon
            self._flush_outcomes()

    def _flush_outcomes(self) -> None:
        try:
            self.channel.leases.flush()
        except (redis.RedisError, OSError) as error:
            log.debug("outcomes are kept for later, the broker is away: %s", error)

    def ack(self, delivery_tag: str) -> None:
        """Settle as done; messages of ours call `settle` themselves."""
        self.settle(delivery_tag, Completed(""))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Return the message to the head of its queue, or drop it as failed."""
        self.settle(delivery_tag, rejection(requeue=requeue))

    def unsettled(self) -> list[str]:
        """Return the delivery tags of all unsettled messages of this channel."""
        return [*self._delivered, *self.channel.taken]

    def restore_unacked(self, client: Any = None) -> list[Any]:  # noqa: ARG002 - kombu's signature
        """Return all unsettled messages to their queues."""
        self._flush()
        orphans = list(self.channel.leases.orphans) if self.prefetch_count else []
        self.channel.leases.return_messages([*orphans, *self._delivered])
        self._delivered.clear()
        try:
            self.channel.leases.flush_and_wait()
        except (redis.RedisError, OSError) as error:
            log.warning("messages come back when their leases end, the broker is away: %s", error)
        return []

    def detach(self) -> None:
        """Forget all messages without returning them: their work continues after a reconnect."""
        self._flush()
        self.channel.leases.orphan(self._delivered)
        self._delivered.clear()
        self._delivered.restored = True

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Nothing: `take` finds ended leases."""


def lease_of(message: Any) -> BrokerLease | None:
    """The lease of a delivered message; None on another transport, or when it needs no acknowledgement."""
    leases = leases_of(message)
    return leases.get(message.delivery_tag) if leases is not None else None


def is_withdrawn(message: Any) -> bool:
    """Whether its lease was returned or lost before it could run."""
    is_ours = leases_of(message) is not None and not message.delivery_tag.endswith(NO_LEASE)
    return is_ours and lease_of(message) is None


def leases_of(message: Any) -> LeaseManager | None:
    """Return the lease manager of the message's channel; None on another transport."""
    leases: LeaseManager | None = getattr(message.channel, "leases", None)
    return leases
