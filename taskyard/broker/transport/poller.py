"""kombu's poller of all channels of a connection, with endings sent once per turn of the loop."""

import logging
from typing import Any

import redis

from taskyard.broker.untyped import RedisPoller

log = logging.getLogger(__name__)


class ChannelPoller(RedisPoller):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Asks each channel for messages when it has free slots; what ended since the last turn goes first."""

    loop: Any = None  # kombu's hub, None where there is none

    def on_poll_start(self) -> None:
        """Start a turn of the loop."""
        self.send_endings()
        super().on_poll_start()

    def send_endings(self) -> None:
        """Send what has ended. A broker that is away is no reason to stop here: the endings stay and are sent later."""
        for leases in {id(channel.leases): channel.leases for channel in self._channels}.values():
            try:
                leases.flush()
            except (redis.RedisError, OSError):
                log.debug("endings are kept for later", exc_info=True)

    def on_poll_init(self, poller: Any) -> None:
        """Use the loop's poller; there is nothing to restore, `take` finds ended leases."""
        self.poller = poller

    def maybe_restore_messages(self) -> None:
        """Nothing: `take` finds ended leases."""

    def _update_brpop_polling(self) -> None:
        """Always read an answer that came: its messages are under leases that run."""

    def on_readable(self, fileno: int) -> None:
        """Read the answer on this socket."""
        channel_and_type = self._fd_to_chan.get(fileno)
        if channel_and_type is not None:
            channel, kind = channel_and_type
            channel.handlers[kind]()
