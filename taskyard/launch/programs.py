"""The programs of the platform: workers for each profile, beat, and Flower."""

import signal
import sys
from collections.abc import Mapping

from taskyard.launch.children import Program, ShutdownStage
from taskyard.settings.platform import Settings
from taskyard.settings.profiles import PROFILES, Profile

BEAT_STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL
FLOWER_STOP_SECONDS = 5.0  # as above
CELERY_POOL_NAMES = {"asyncio": "custom"}  # pools that Celery names differently
ASYNCIO_POOL = "taskyard.pools.asyncio_pool:TaskPool"
SHUTDOWN_GRACE = 5.0  # seconds beyond WORKER_SHUTDOWN_SECONDS, to return running tasks


def programs(app: str | None, settings: Settings, environment: Mapping[str, str], *, flower: bool) -> list[Program]:
    """
    Return the programs to start.

    Args:
        app: The value of `celery -A`; None lets Celery find the app as it found ours.
        settings: Process counts and time limits.
        environment: Additional variables for all of them.
        flower: Whether to start Flower.
    """
    celery = (sys.executable, "-m", "celery", *(("-A", app) if app else ()), "--quiet")
    found = [
        _worker(celery, profile, number, settings, environment)
        for profile in PROFILES
        for number in range(1, profile.workers(settings) + 1)
    ]
    found.append(Program("beat", (*celery, "beat", "--pidfile="), ShutdownStage.BEAT, BEAT_STOP_SECONDS, environment))
    if flower:
        command = (*celery, "flower")
        found.append(
            Program(
                "flower",
                command,
                ShutdownStage.WATCHERS,
                FLOWER_STOP_SECONDS,
                environment,
                is_vital=False,
                orphan_signal=signal.SIGKILL,  # without its broker it ignores SIGTERM, and would keep its port
            )
        )
    return found


def _worker(
    celery: tuple[str, ...], profile: Profile, number: int, settings: Settings, environment: Mapping[str, str]
) -> Program:
    name = f"{profile.name}-{number}"
    pool = CELERY_POOL_NAMES.get(profile.pool, profile.pool)
    options = ("--hostname", f"{name}@%h", "--pool", pool, "--concurrency", str(profile.slots(settings)))
    command = (*celery, "worker", *options, "--queues", ",".join(profile.queues))
    if pool == "custom":
        environment = {**environment, "CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL}
    seconds = settings.worker_shutdown_seconds.total_seconds() + SHUTDOWN_GRACE
    return Program(name, command, ShutdownStage.WORKERS, seconds, environment)
