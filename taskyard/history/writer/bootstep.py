"""The history writer in a Celery worker: a thread beside the pool; only one worker writes at a time."""

import threading
from typing import Any

import structlog
from celery import bootsteps

from taskyard.broker.server.client import shared_client
from taskyard.database.engine import current_engine
from taskyard.history.writer.event_writer import BESIDE_WORK, EventWriter
from taskyard.history.writer.helper_process import WriterHelper
from taskyard.settings.loading import current_settings

STOP_LIMIT = 1.0  # seconds; the next writer repeats a write that takes longer
log = structlog.get_logger("taskyard.history.writer.bootstep")


class EventWriterStep(bootsteps.StartStopStep):
    """Starts after the pool, so that its processes are forked before this thread exists."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.enabled = current_settings().audit_enabled
        self._writer: EventWriter | None = None
        self._thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Start the writer thread."""
        settings = current_settings()
        client, prefix = shared_client(settings.redis_url), settings.taskyard_key_prefix
        self._writer = EventWriter(client, current_engine(), prefix, BESIDE_WORK, delegate=WriterHelper().work)
        self._thread = threading.Thread(target=self._writer.run, name="audit-writer", daemon=True)
        self._thread.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stop the writer thread; unwritten events stay in the stream."""
        if self._writer is None or self._thread is None:
            return
        self._writer.stop()
        self._thread.join(STOP_LIMIT)
        if self._thread.is_alive():
            log.warning("audit.writer_did_not_stop")

    terminate = stop
