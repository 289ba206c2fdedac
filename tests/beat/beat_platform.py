"""A broker, a database and real processes on them: what the tests of schedules act on, and how they look at it."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlmodel import select

from taskyard.beat import catalog
from taskyard.beat.definitions import Definition
from taskyard.beat.engine.leadership import Leader, current_leader
from taskyard.beat.models import Schedule, ScheduleFire
from tests.beat.app import MARKS
from tests.databases import Database
from tests.servers import Server
from tests.waiting import wait_for
from tests.workers import MINIMAL, Worker

APP = "tests.beat.app"
PREFIX = "taskyard:"
START_LIMIT = 90  # seconds; imports take long on a busy machine


class BeatProcess(Worker):
    """One `celery -A tests.beat.app beat`."""

    def __init__(self, folder: Path, *, name: str, scheduler: str | None, env: Mapping[str, str]) -> None:
        super().__init__(APP, folder, name=name, env=env)
        chosen = ["-S", scheduler] if scheduler else []
        self._arguments = ["-A", APP, "-q", "beat", "-l", "INFO", *chosen]

    def wait_ready(self, after_byte: int = 0) -> None:
        """Wait until it says that it starts."""

        def has_started() -> bool:
            assert self.is_running, f"beat ended with {self.exit_code}:\n{self.tail()}"
            return b"beat: Starting" in self.log.read_bytes()[after_byte:]

        wait_for(has_started, START_LIMIT, "beat starts")

    def says(self, event: str) -> bool:
        """Whether its log has this event."""
        return event in self.log.read_text(errors="replace")


@dataclass(frozen=True)
class Fast:
    """A compressed time."""

    origin: datetime
    rate: float

    @property
    def env(self) -> dict[str, str]:
        return {"FAST_ORIGIN": self.origin.isoformat(), "FAST_RATE": str(self.rate), "BEAT_AHEAD_SECONDS": "0"}


class BeatPlatform:
    """Ends all it started when its block ends."""

    def __init__(self, server: Server, database: Database, folder: Path) -> None:
        self.server, self.database, self.folder = server, database, folder
        self._ends = ExitStack()
        self.fast: Fast | None = None
        self.client = self._ends.enter_context(server.client())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a process of this platform."""
        return {
            "REDIS_URL": self.server.url,
            "DATABASE_URL": self.database.url,
            "MARKS_URL": self.server.url,
            "TASKYARD_DATA": str(self.folder),
            "LOG_FORMAT": "json",
            **(self.fast.env if self.fast else {}),
            **more,
        }

    def compress(self, rate: float) -> Fast:
        """Let all beat processes that start from now on live so many times faster."""
        self.fast = Fast(datetime.now(UTC), rate)
        return self.fast

    def beat(self, name: str = "beat", scheduler: str | None = None, **env: str) -> BeatProcess:
        """Start a beat process; `scheduler` (module:class) replaces the platform's."""
        if self.fast:
            scheduler = "tests.beat.fast_scheduler:FastScheduler"
        beat = BeatProcess(self.folder, name=name, scheduler=scheduler, env=self.env(**env))
        self._ends.callback(_end, beat)
        return beat.start()

    def worker(self, name: str = "worker", **env: str) -> Worker:
        """Start a worker with four threads; it leaves the event stream as it is, for :meth:`enqueued`."""
        arguments = ("-P", "threads", "-c", "4", *MINIMAL)
        worker = Worker(APP, self.folder, name=name, arguments=arguments, env=self.env(AUDIT_ENABLED="false", **env))
        self._ends.callback(_end, worker)
        return worker.start()

    def add(self, name: str = "job", **fields: Any) -> Schedule:
        """Add a schedule of the test task; by default every second."""
        given: dict[str, Any] = {"task": "tests.mark", "kind": "every", "expression": "1", "args": {"label": name}}
        with self.database.session() as session, session.begin():
            return catalog.add(session, Definition(name=name, **(given | fields)), by="tests")

    def schedule(self, name: str = "job") -> Schedule:
        """Read a schedule."""
        with self.database.session() as session:
            return catalog.find(session, name)

    def fires(self, name: str = "job", *states: str) -> list[ScheduleFire]:
        """Read the fires of a schedule, the oldest slot first; `states` picks."""
        with self.database.session() as session:
            schedule = catalog.find(session, name)
            query = select(ScheduleFire).where(ScheduleFire.schedule_id == schedule.id)
            found = sorted(session.exec(query).all(), key=lambda fire: fire.slot)
            return [fire for fire in found if not states or fire.state in states]

    def enqueued(self) -> Counter[str]:
        """How many times each run was put into the broker, by its event stream."""
        entries: Any = self.client.xrange(f"{PREFIX}events")
        return Counter(fields["id"] for _, fields in entries if fields["e"] in {"queued", "scheduled"})

    def marks(self) -> list[tuple[str, str, str, float]]:
        """What runs said: start or end, label, run id, time (seconds)."""
        lines: Any = self.client.lrange(MARKS, 0, -1)
        words = [line.split() for line in lines]
        return [(what, label, run_id, float(at)) for what, label, run_id, at in words]

    def leader(self) -> Leader | None:
        """Look who leads."""
        return current_leader(self.client, PREFIX)

    def led_by(self, beat: BeatProcess) -> bool:
        """Whether this process leads."""
        found = self.leader()
        return found is not None and found.owner.split(":")[1] == str(beat.pid)

    def wait_led_by(self, beat: BeatProcess, limit: float = 20) -> None:
        """Wait until this process leads."""
        wait_for(lambda: self.led_by(beat), limit, "this process leads")

    def check_books(self, name: str = "job") -> list[ScheduleFire]:
        """
        Check that a schedule of intervals has settled each slot exactly once, and that the broker agrees.

        To be called when no beat process runs and nothing is pending; returns the fires that were published.
        """
        schedule, fires = self.schedule(name), self.fires(name)
        assert not [fire for fire in fires if fire.state == "pending"]
        every = timedelta(seconds=float(schedule.expression))
        expected = fires[0].slot - (fires[0].slots - 1) * every
        for fire in fires:
            first = fire.slot - (fire.slots - 1) * every
            is_counted = fire.error != "and more before"  # of a long outage, only so many slots are counted
            assert first == expected if is_counted else first >= expected, f"not at {expected}: {fire}"
            expected = fire.slot + every
        assert schedule.cursor == expected - every, "the cursor is at the last settled slot"
        published = [fire for fire in fires if fire.state == "published"]
        counted = self.enqueued()
        assert {str(fire.id): 1 for fire in published} == {str(fire.id): counted[str(fire.id)] for fire in published}
        assert (schedule.fired, schedule.missed) == (
            len(published),
            sum(fire.slots for fire in fires if fire.state == "missed"),
        )
        return published

    def end(self, *beats: BeatProcess) -> None:
        """Let the processes finish what is pending, and end them; one that ended too early leaves it to one more."""
        self._wait_nothing_pending()
        for beat in beats:
            beat.stop()
        while self._pending():
            with beats[0].start():
                self._wait_nothing_pending()

    def _wait_nothing_pending(self) -> None:
        wait_for(seldom(lambda: not self._pending()), 90, "nothing is pending")

    def _pending(self) -> list[ScheduleFire]:
        return [fire for name in self._names() for fire in self.fires(name, "pending")]

    def _names(self) -> list[str]:
        with self.database.session() as session:
            return list(session.exec(select(Schedule.name)).all())

    def wait_fires(self, count: int, *states: str, name: str = "job", limit: float = 20) -> list[ScheduleFire]:
        """Wait for so many fires."""
        wait_for(seldom(lambda: len(self.fires(name, *states)) >= count), limit, f"{count} fires of {name}")
        return self.fires(name, *states)


def seldom[T](look: Callable[[], T], seconds: float = 0.2) -> Callable[[], T | None]:
    """A condition that looks at most every so often: looking at a database fifty times a second would slow it down."""
    next_look = 0.0

    def condition() -> T | None:
        nonlocal next_look
        if time.monotonic() < next_look:
            return None
        next_look = time.monotonic() + seconds
        return look()

    return condition


def gaps(fires: list[ScheduleFire]) -> set[timedelta]:
    """The distances between neighbouring slots."""
    return {after.slot - before.slot for before, after in pairwise(fires)}


def _end(process: Worker) -> None:
    if process.is_running:
        process.resume()
        process.kill()
