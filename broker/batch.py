"""kombu's `Producer.batch` on our transport: the puts of a batch go in one script call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import redis

from broker.duplicates import report_duplicate
from broker.messages import PUT_STRIDE, put_words
from broker.scripting import Word, run
from broker.untyped import BatchPublishError, RedisPublishBatch

if TYPE_CHECKING:
    from broker.channel import Channel

RUN_ID = 11  # position among the words of one put


class Routed(NamedTuple):
    """One message on its way into one queue."""

    queue: str
    message: dict[str, Any]
    expiry_ms: int  # of a temporary queue; 0 for none


class PublishBatch(RedisPublishBatch):  # type: ignore[misc]  # see broker/untyped.py
    """Collects puts until `max_size` of them or the end of the batch."""

    channel: Channel

    def __init__(self, channel: Channel, max_size: int) -> None:
        self._words: list[Word] = []
        self.routed: list[Routed] = []  # what the last publication put, one for each of its queues
        super().__init__(channel, max_size)

    def take_words(self) -> tuple[Word, ...]:
        """Take out what was collected, for a later call of the script `put`; it is not sent with the batch."""
        words, self._words = tuple(self._words), []
        return words

    def publish(self, message: dict[str, Any], **options: Any) -> Any:
        """Route one message; what it puts is sent with its batch."""
        self.routed.clear()
        return super().publish(message, **options)

    def put(self, routed: Routed) -> None:
        """
        Collect one message.

        Raises:
            BatchPublishError: As :meth:`flush`, when the batch is full.
        """
        self._words.extend(put_words(*routed))
        if len(self._words) >= self.max_size * PUT_STRIDE:
            self.flush()

    def flush(self) -> None:
        """
        Send what was collected.

        Raises:
            BatchPublishError: The broker did not answer; the messages may be there or not.
        """
        self._check_usable()
        words, self._words = self._words, []
        if words:
            try:
                answers = run(self.channel.sync_client, self.channel.space, "put", *words)
            except (redis.RedisError, OSError) as error:
                self._failed = error
                raise BatchPublishError("the batch failed; its messages may be there or not") from error
            for position, existing in enumerate(answers):
                if existing:
                    report_duplicate(str(words[position * PUT_STRIDE + RUN_ID]), existing.decode())
        super().flush()

    def discard(self) -> None:
        """Forget what was collected."""
        self._words.clear()
        super().discard()
