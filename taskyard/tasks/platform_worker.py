"""Celery's worker for our apps, in a pool that keeps their promises."""

from typing import Any

from celery.apps.worker import Worker

from taskyard.settings.loading import current_settings
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

    def on_init_blueprint(self) -> None:
        """With a log file, also write there what tasks print: a detached worker has no standard output."""
        super().on_init_blueprint()
        worker: Any = self  # the stubs know neither attribute
        worker.redirect_stdouts = worker.redirect_stdouts or bool(worker.logfile)

    def setup_defaults(self, concurrency: int | None = None, loglevel: Any = None, *args: Any, **options: Any) -> Any:
        """Take the level from LOG_LEVEL where none is given."""
        level = loglevel or current_settings().log_level.upper()
        return super().setup_defaults(concurrency, level, *args, **options)
