"""Celery's worker for our apps, in a pool that keeps their promises."""

from typing import Any

from celery.apps.worker import Worker

from taskyard.tasks.green_pools import refuse_green_pools


class PlatformWorker(Worker):
    """Celery's own worker, in a pool that keeps our promises."""

    def on_before_init(self, quiet: bool = False, **options: Any) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """
        Look at the pool before anything is opened.

        Raises:
            PoolRefusedError: It is a pool of green threads.
        """
        refuse_green_pools(str(options.get("pool") or options.get("pool_cls") or self.app.conf.worker_pool))
        super().on_before_init(quiet, **options)
