"""Everything that `up` keeps is killed at random, at last `up` itself: the next one goes on, and no task is lost."""

import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from kombu.exceptions import OperationalError

from tests.app_broker import use_broker
from tests.launch.app import hold
from tests.launch.up_process import Up, all_gone
from tests.waiting import stays_true, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
LIMIT = 180  # seconds, on a busy machine
NAMES = ("valkey", "beat", "io-1", "io-2", "prefork-1")
KILLS = 10
ENVIRONMENT = {
    "WORKER_COUNT": "2",
    "WORKER_QUEUE_STALLED_INTERVAL": "3000",
    "WORKER_MAX_STALLS": "1000",
    "WORKER_RESTART_DELAY": "0.1",
    "WORKER_RESTART_LIMIT": "1000",
    "WORKER_SHUTDOWN_SECONDS": "10",
    "LOG_FORMAT": "json",
}


def start(folder: Path) -> Up:
    environment = {**ENVIRONMENT, "TASKYARD_DATA": str(folder / "data"), "DATABASE_URL": ""}
    up = Up(["-m", "celery", "-A", "tests.launch.app", "up", "--no-flower"], folder, environment)
    use_broker(up.wait_says("up.valkey")["url"])
    return up


def enqueue(folder: Path, numbers: Sequence[int]) -> set[int]:
    """Return those that the broker took for certain."""
    taken = set()
    for number in numbers:
        with suppress(OperationalError):
            hold.delay(folder=str(folder), number=number)
            taken.add(number)
    return taken


def kill_some(up: Up, chance: random.Random) -> None:
    stays_true(lambda: True, chance.choice([0, 0.1, 0.5, 2, 4]), "a random moment")
    for name in chance.sample(NAMES, chance.choice([1, 1, 2, len(NAMES)])):
        with suppress(ProcessLookupError):
            os.kill(up.pid_of(name), signal.SIGKILL)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_kills_lose_no_task_and_leave_no_process(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    (tmp_path / "go").touch()
    taken: set[int] = set()
    families: list[psutil.Process] = []
    for life in range(3):
        with start(tmp_path) as up:
            for kill in range(KILLS):
                taken |= enqueue(tmp_path, range(1000 * life + 10 * kill, 1000 * life + 10 * kill + 10))
                kill_some(up, chance)
            families += up.family()
            up.process.kill()
            up.process.wait()
    with start(tmp_path) as up:

        def left() -> set[int]:
            lines = (tmp_path / "ended").read_text().splitlines() if (tmp_path / "ended").exists() else []
            return taken - {int(line) for line in lines}

        wait_for(lambda: not left(), LIMIT, "all tasks ended", lambda: f"{left()}\n{up.tail()}")
        families += up.family()
        up.signal()
        assert up.wait_ended() == 0
    wait_for(lambda: all_gone(families), LIMIT, "no process is left")
