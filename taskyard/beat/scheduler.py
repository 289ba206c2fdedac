"""The scheduler of `celery -A tasks beat`: Celery's face of the engine."""

import signal
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from celery.beat import Scheduler as CeleryScheduler

from taskyard.beat.deploy import deploy
from taskyard.beat.engine.clock import Clock, ServerClock
from taskyard.beat.engine.firing import Firing
from taskyard.beat.engine.leadership import LeaderLease
from taskyard.beat.engine.loop import Engine, Intervals
from taskyard.beat.engine.publisher import CeleryPublisher
from taskyard.beat.engine.store import BeatStore
from taskyard.beat.metrics import BeatMetrics
from taskyard.beat.timetable import timetable
from taskyard.broker.server.client import open_client
from taskyard.database.engine import open_engine
from taskyard.settings.loading import current_settings
from taskyard.settings.platform import Settings
from taskyard.tasks.current_app import current_app
from taskyard.tasks.platform_identity import PlatformGuard, claim_broker
from taskyard.tasks.start_checks import refuse_missing_rights

AFTER_A_FAULT = 1.0  # seconds
FAILED = 1  # exit code
SHORTEST_PATIENCE = timedelta(seconds=2)  # with a database
CONNECTIONS = 2  # to the database, kept open
log = structlog.get_logger(__name__)


class Scheduler(CeleryScheduler):
    """
    Fires the schedules in SQL while this process leads; any number of processes may run.

    Celery makes a second, lazy instance for its banner: nothing is opened before the first tick.
    """

    max_interval = 1  # second

    def __init__(self, *args: Any, **options: Any) -> None:
        self._engine: Engine | None = None
        self._guard: PlatformGuard | None = None
        self._is_ticking = self._is_ending = False
        self._exit_code = 0
        super().__init__(*args, **options)

    def setup_schedule(self) -> None:
        """
        Check the settings that say when, and that the broker is ours; schedules are read later, from SQL.

        Raises:
            SettingsError: One of them is wrong; later, a tick would log it and go on.
            MissingRightsError: The broker's user may not do what beat needs.
            OtherPlatformError: The broker is another platform's.
        """
        refuse_missing_rights("worker")
        timetable(current_app().domains)
        claim_broker()
        self._guard = PlatformGuard(self._end_by_guard)
        self._guard.start()

    def tick(self, *_: Any, **__: Any) -> float:
        """Run the engine once; a fault of ours is logged, and must not silence all schedules."""
        self._is_ticking = True
        try:
            if self._engine is None:
                self._listen_to_signals()
                self._engine = build_engine(self.app, current_settings(), self.clock(), self.pace())
            pause = min(self._engine.tick(), float(self.max_interval))
        except Exception:
            log.exception("beat.tick_failed")
            pause = AFTER_A_FAULT
        finally:
            self._is_ticking = False
        if self._is_ending:
            raise SystemExit(self._exit_code)
        return pause

    @property
    def metrics(self) -> BeatMetrics | None:
        """What this process counted; None before its first tick."""
        return self._engine.metrics if self._engine else None

    def close(self) -> None:
        """Release the lead and the connections; called twice at the end of a process."""
        if self._guard is not None:
            self._guard.stop()
        if self._engine is not None:
            self._engine.close()
        super().close()

    def clock(self) -> Clock:
        """Return the clock that slots follow."""
        return ServerClock()

    def pace(self) -> Intervals:
        """Return how often what is done."""
        return Intervals(lease=current_settings().beat_lease_seconds)

    def _listen_to_signals(self) -> None:
        """Take SIGTERM and SIGINT over from Celery, whose handler breaks off in the middle of a write."""
        if threading.current_thread() is threading.main_thread():  # `worker -B` runs us in a thread
            signal.signal(signal.SIGTERM, self._end)
            signal.signal(signal.SIGINT, self._end)

    def _end(self, *_: Any) -> None:
        """Let the tick come to its end; a second signal breaks it off."""
        if not self._is_ticking or self._is_ending:
            raise SystemExit
        self._end_soon()

    def _end_by_guard(self) -> None:
        self._exit_code = FAILED
        self._end_soon()

    def _end_soon(self) -> None:
        self._is_ending = True
        if self._engine is not None:
            self._engine.end_soon()

    @property
    def info(self) -> str:
        """Celery's banner says this."""
        return "    . schedules -> SQL; see `celery -A tasks schedules ls`"


def build_engine(app: Any, settings: Settings, clock: Clock, pace: Intervals) -> Engine:
    """
    Put the parts of one beat process together, on connections of its own.

    They give up early: an answer that comes after the lease is worth nothing, and a process that waits for one learns
    late that its servers are back.
    """
    database = open_engine(
        settings.database_url, CONNECTIONS, max(pace.lease, SHORTEST_PATIENCE), schema=settings.taskyard_schema
    )
    store, metrics = BeatStore(database), BeatMetrics()
    patience = max(pace.lease.total_seconds() / 2, 0.2)
    client = open_client(settings.redis_url, socket_timeout=patience, socket_connect_timeout=patience)
    lease = LeaderLease(client, settings.taskyard_key_prefix, pace.lease)
    publisher = CeleryPublisher(app, client, settings, patience)
    return Engine(
        store,
        lease,
        clock,
        Firing(store, publisher, lease, clock, metrics=metrics, grace=settings.beat_grace_seconds),
        metrics,
        deploy=partial(deploy, database, timetable(app.domains)),
        ahead=settings.beat_ahead_seconds,
        retention=timedelta(days=settings.beat_fires_retention_days),
        pace=pace,
    )
