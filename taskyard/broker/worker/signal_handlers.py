"""SIGTERM and SIGINT alike begin a soft shutdown; a second one, of either kind, ends it at once."""

import sys
from typing import Any

from celery import bootsteps
from celery.apps import worker as program

_worker: Any = program  # its stubs lack the handlers
SIGNALS = ("SIGTERM", "SIGINT")


class SoftSignals(bootsteps.StartStopStep):
    """
    Replaces the handlers that Celery installs just before the worker's steps start.

    Celery's own SIGTERM waits for what runs without a limit, and its SIGINT takes three presses.
    """

    def start(self, parent: Any) -> None:  # Celery's signature
        """Install ours, in a worker that is a program of its own."""
        if isinstance(parent, _worker.Worker):
            for name in SIGNALS:
                _worker.install_worker_term_hard_handler(parent, sig=name, callback=_begin, verbose=False)


def _begin(worker: Any) -> None:
    seconds = worker.app.conf.worker_soft_shutdown_timeout
    _worker.safe_say(f"worker: Soft shutdown (MainProcess): running tasks have {seconds:g} s", sys.__stdout__)
    _worker.on_cold_shutdown(worker)  # begins with the soft one, see `soft_shutdown`; prepares SIGINT and SIGQUIT
    _worker.install_worker_term_hard_handler(worker, sig="SIGTERM", callback=_worker.during_soft_shutdown)
