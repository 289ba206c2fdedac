"""Queue lengths for Flower, which knows only how stock kombu keeps its queues."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import kombu

from taskyard.broker.admin.queue_control import QueueControl

FLOWERS_PAGES = "flower.views"  # here Flower looks up the class that counts queues


class FlowerQueues:
    """What Flower calls a broker: counts the named queues; `settings` are those of `transport_settings`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Count, in a thread beside Flower's loop; `messages` are the ready, the delayed and those of workers."""
        return await asyncio.to_thread(self._count, list(names))

    def _count(self, names: list[str]) -> list[dict[str, Any]]:
        options: dict[str, Any] = self._settings["broker_transport_options"]
        connection: Any = kombu.Connection(
            self._settings["broker_url"], transport=self._settings["broker_transport"], transport_options=options
        )
        with connection:
            control = QueueControl(connection.default_channel.sync_client, options["key_prefix"])
            counts = [control.counts(name) for name in names]
        return [
            {
                "name": one.queue,
                "messages": one.waiting + one.delayed + one.active,
                "messages_ready": one.waiting,
                "messages_unacknowledged": one.active,
                "consumers": one.consumers,
            }
            for one in counts
        ]


def show_in_flower(settings: Mapping[str, Any]) -> None:
    """Let Flower count our queues, if this process is one that has loaded Flower."""
    pages = sys.modules.get(FLOWERS_PAGES)
    if pages is not None:
        vars(pages)["Broker"] = lambda *_, **__: FlowerQueues(settings)
