"""kombu's poller of all channels of a connection; outcomes are flushed once per loop turn."""

import logging
from queue import Empty
from typing import Any

import redis

from taskyard.broker.untyped import RedisPoller

log = logging.getLogger(__name__)


class ChannelPoller(RedisPoller):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Flushes outcomes, then asks each channel with free slots for messages."""

    loop: Any = None  # kombu's hub, None where there is none

    def on_poll_start(self) -> None:
        """Start a turn of the loop."""
        self.send_endings()
        super().on_poll_start()

    def send_endings(self) -> None:
        """Flush outcomes; while the broker is away they are kept for later."""
        for leases in {id(channel.leases): channel.leases for channel in self._channels}.values():
            try:
                leases.flush()
            except (redis.RedisError, OSError):
                log.debug("outcomes are kept for later", exc_info=True)

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
            try:
                channel.handlers[kind]()
            except Empty:  # an answer without a message; only those who wait without a loop want to know
                if self.loop is None:
                    raise
