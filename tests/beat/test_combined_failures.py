"""Disasters at random: processes are killed, suspended, cut off and healed, and the books are right in the end."""

import random
import time
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from sqlalchemy.engine import make_url

from tests.beat.beat_platform import BeatPlatform, BeatProcess
from tests.proxy import Proxy
from tests.waiting import stays_true

RATE = 5  # seconds that pass in one
DISASTERS = ("kill", "suspend", "broker", "broker, silently", "database", "database, silently", "heal", "heal", "heal")


@dataclass(frozen=True, slots=True)
class Victim:
    """One beat process and the cables that it hangs on."""

    beat: BeatProcess
    to_broker: Proxy
    to_database: Proxy | None  # None: SQLite has no cable

    def suffer(self, disaster: str) -> None:
        """Let something bad happen to it."""
        silent = disaster.endswith("silently")
        if disaster == "kill":
            self.beat.kill()
            self.beat.start(wait_ready=False)
        elif disaster == "suspend":
            self.beat.suspend()
        elif disaster.startswith("broker"):
            self.to_broker.cut(silent=silent)
        elif self.to_database is not None:
            self.to_database.cut(silent=silent)

    def heal(self) -> None:
        """Make all good again."""
        self.to_broker.heal()
        if self.to_database is not None:
            self.to_database.heal()
        self.beat.resume()


def start(platform: BeatPlatform, ends: ExitStack, name: str) -> Victim:
    to_broker = ends.enter_context(Proxy(platform.server.port))
    if platform.database.kind == "sqlite":
        return Victim(platform.beat(name, REDIS_URL=to_broker.url), to_broker, None)
    url = make_url(platform.database.url)
    to_database = ends.enter_context(Proxy(url.port or 5432))
    through = url.set(port=to_database.port).render_as_string(hide_password=False)
    return Victim(platform.beat(name, REDIS_URL=to_broker.url, DATABASE_URL=through), to_broker, to_database)


def run_chaos(platform: BeatPlatform, *, count: int, seconds: float, seed: int) -> None:
    platform.compress(RATE)
    platform.add("once", misfire="run_once")
    platform.add("none", misfire="skip", expression="3")
    platform.add("all", misfire="run_all", misfire_limit=100)
    chance = random.Random(seed)  # noqa: S311 - it need not be secret
    with ExitStack() as ends:
        victims = [start(platform, ends, f"beat{number}") for number in range(count)]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            disaster = chance.choice(DISASTERS)
            for victim in victims if disaster == "heal" else [chance.choice(victims)]:
                victim.heal() if disaster == "heal" else victim.suffer(disaster)
            pause = min(chance.uniform(0.2, 2.5), max(until - time.monotonic(), 0))
            stays_true(lambda: True, pause, "time passes")
        for victim in victims:
            victim.heal()
        fired = platform.schedule("once").fired
        platform.wait_fires(fired + 3, name="once", limit=60)
        platform.end(*(victim.beat for victim in victims))
    for name in ("once", "none", "all"):
        assert platform.check_books(name)


def test_one_minute_of_disasters_leaves_the_books_right(platform: BeatPlatform) -> None:
    run_chaos(platform, count=3, seconds=60 / RATE, seed=1)


@pytest.mark.chaos
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_ten_minutes_of_disasters_leave_the_books_right(platform: BeatPlatform, count: int, seed: int) -> None:
    run_chaos(platform, count=count, seconds=600 / RATE, seed=seed)
