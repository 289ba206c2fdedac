"""A delivered message: kombu's, with a fast path for plain JSON and one call to settle its lease."""

from __future__ import annotations

from typing import Any

from taskyard.broker.protocol.envelope import PROBLEM
from taskyard.broker.protocol.json_codec import load
from taskyard.broker.protocol.outcomes import Completed, Outcome, rejection
from taskyard.broker.untyped import VirtualMessage

JSON = "application/json"
KOMBU_TYPE_MARK = b"__type__"  # of kombu's JSON encoder on what JSON does not know


class DeliveredMessage(VirtualMessage):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """kombu's message; the common one (UTF-8, not compressed, plain JSON) is made and decoded in a few steps."""

    outcome: Outcome | None = None  # how its execution ended; None: acknowledged as done, or rejected

    def __init__(self, payload: dict[str, Any], channel: Any = None) -> None:
        properties, headers, body = payload["properties"], payload.get("headers") or {}, payload.get("body")
        self.problem: str | None = properties.pop(PROBLEM, None)  # why it is no task that a worker can run
        if properties.get("body_encoding") != "utf-8" or headers.get("compression") or not isinstance(body, str):
            super().__init__(payload, channel)
            return
        self._raw = payload
        self.body = body.encode()
        self.channel = channel
        self.delivery_tag = properties["delivery_tag"]
        self.content_type = payload.get("content-type")
        self.content_encoding = payload.get("content-encoding")
        self.delivery_info = properties.get("delivery_info") or {}
        self.headers = headers
        self.properties = properties
        self.errors: list[Any] = []
        self.accept = None
        self._decoded_cache = None
        self._state = "RECEIVED"

    def ack(self, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Settle the lease with the outcome, or as done."""
        consumer_tag = self.delivery_info.get("consumer_tag")
        if multiple or consumer_tag in (self.channel.no_ack_consumers or ()):
            super().ack(multiple)
        else:
            self._settle(self.outcome or Completed(""), "ACK")

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Settle the lease with the outcome, or return the message to its queue, or drop it as failed."""
        self._settle(self.outcome or rejection(requeue=requeue), "REJECTED")

    def _settle(self, outcome: Outcome, state: str) -> None:
        if self.acknowledged:
            raise self.MessageStateError(f"message already acknowledged with state: {self._state}")
        self.channel.qos.settle(self.delivery_tag, outcome)
        self._state = state

    def _decode(self) -> Any:
        is_plain = self.content_type == JSON and self.content_encoding == "utf-8" and KOMBU_TYPE_MARK not in self.body
        if is_plain and self.accept is not None and JSON in self.accept:
            try:
                return load(self.body)
            except (ValueError, RecursionError):
                return super()._decode()  # raises what kombu raises
        return super()._decode()
