"""Celery's worker for our apps: refuses at start the pools in which leases and shutdown do not work."""

from typing import Any

import click
from celery.apps.worker import Worker

from taskyard.settings.loading import current_settings

GREEN_POOLS = ("eventlet", "gevent")


class PoolRefusedError(click.ClickException):
    """The pool cannot keep the promises of the platform."""

    exit_code = 2


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


def refuse_green_pools(pool: str) -> None:
    """
    Refuse gevent and eventlet: our leases and shutdown rely on real threads, which they replace.

    Raises:
        PoolRefusedError: It is one of them, by its name or by its class's path.
    """
    name = next((green for green in GREEN_POOLS if green in pool.lower()), None)
    if name is not None:
        raise PoolRefusedError(
            f"the pool {name} is not supported: leases and shutdown rely on real threads, which it replaces; "
            "use -P threads, or async def handlers in the asyncio pool (docs/asyncio.md)"
        )
