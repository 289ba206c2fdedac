"""Interim request class for the stock transport."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.worker.request import Request
from kombu.utils.json import dumps

from broker.redelivery import Redeliver
from broker.wire import BURY_TASK, DEAD_LETTER_QUEUE, HEADER


class PlatformRequest(Request):
    """Carries out what settle decided."""

    def on_retry(self, exc_info: Any) -> None:
        """Move."""
        exc = exc_info.exception
        if isinstance(exc, Redeliver):
            headers = dict(self.message.headers)
            facts = dict(headers.get(HEADER) or {})
            facts["attempt"] = facts.get("attempt", 1) + (1 if exc.uses_attempt else 0)
            eta = (datetime.now(UTC) + timedelta(seconds=exc.delay)).isoformat()
            headers |= {HEADER: facts, "eta": eta}
            with self.app.producer_or_acquire() as producer:
                producer.publish(
                    self.message.body,
                    exchange="",
                    routing_key=self.message.delivery_info["routing_key"],
                    headers=headers,
                    content_type=self.message.content_type,
                    content_encoding=self.message.content_encoding,
                    correlation_id=self.id,
                    priority=self.message.properties.get("priority"),
                )
        super().on_retry(exc_info)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Bury."""
        exc = exc_info.exception
        if not isinstance(exc, Redeliver) and self.name != BURY_TASK:
            facts = self.message.headers.get(HEADER) or {}
            body = self.message.body
            self.app.send_task(
                BURY_TASK,
                kwargs={
                    "run_id": self.id,
                    "attempt": facts.get("attempt", 1),
                    "task": self.name,
                    "queue": self.message.delivery_info["routing_key"],
                    "reason": getattr(exc, "dead_letter_reason", "exhausted"),
                    "error": type(exc).__name__,
                    "message": str(exc),
                    "traceback": exc_info.traceback,
                    "body": base64.b64encode(body.encode() if isinstance(body, str) else body).decode(),
                    "headers": json.loads(dumps(self.message.headers)),
                    "failed_at": datetime.now(UTC).isoformat(),
                },
                queue=DEAD_LETTER_QUEUE,
            )
        return super().on_failure(exc_info, send_failed_event, return_ok)
