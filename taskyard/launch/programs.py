"""The programs of the platform: one worker or several for each profile, beat, and Flower."""

import signal
import sys
from collections.abc import Mapping

from taskyard.launch.children import Program, Stage
from taskyard.settings.platform import Settings
from taskyard.settings.profiles import PROFILES, Profile

BEAT_SECONDS = 5.0  # from SIGTERM to SIGKILL
FLOWER_SECONDS = 5.0  # as above
CELERYS_NAMES = {"asyncio": "custom"}  # where Celery has another name for a pool
ASYNCIO_POOL = "taskyard.pools.asyncio_pool:TaskPool"
GRACE = 5.0  # seconds that a worker gets beyond WORKER_SHUTDOWN_SECONDS, to return what still runs


def programs(app: str | None, settings: Settings, environment: Mapping[str, str], *, flower: bool) -> list[Program]:
    """
    Return what to start.

    Args:
        app: What was given to `celery -A`; None lets Celery find it as it found ours.
        settings: Counts and limits.
        environment: Variables for all of them.
        flower: Whether to start Flower.
    """
    celery = (sys.executable, "-m", "celery", *(("-A", app) if app else ()), "--quiet")
    found = [
        _worker(celery, profile, number, settings, environment)
        for profile in PROFILES
        for number in range(1, profile.workers(settings) + 1)
    ]
    found.append(Program("beat", (*celery, "beat", "--pidfile="), Stage.BEAT, BEAT_SECONDS, environment))
    if flower:
        command = (*celery, "flower")
        found.append(
            Program(
                "flower",
                command,
                Stage.WATCHERS,
                FLOWER_SECONDS,
                environment,
                is_vital=False,
                orphan_signal=signal.SIGKILL,  # without its broker it does not end by SIGTERM, and would keep its port
            )
        )
    return found


def _worker(
    celery: tuple[str, ...], profile: Profile, number: int, settings: Settings, environment: Mapping[str, str]
) -> Program:
    name = f"{profile.name}-{number}"
    pool = CELERYS_NAMES.get(profile.pool, profile.pool)
    options = ("--hostname", f"{name}@%h", "--pool", pool, "--concurrency", str(profile.slots(settings)))
    command = (*celery, "worker", *options, "--queues", ",".join(profile.queues))
    if pool == "custom":
        environment = {**environment, "CELERY_CUSTOM_WORKER_POOL": ASYNCIO_POOL}
    seconds = settings.worker_shutdown_seconds.total_seconds() + GRACE
    return Program(name, command, Stage.WORKERS, seconds, environment)
