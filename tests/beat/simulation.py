"""Engines in this process, on real servers, with a clock that the test turns: an hour of slots takes a moment."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from tasks.app import app
from taskyard.beat import catalog
from taskyard.beat.definitions import Definition
from taskyard.beat.deploy import deploy
from taskyard.beat.engine.firing import Firing
from taskyard.beat.engine.leadership import LeaderLease
from taskyard.beat.engine.loop import Engine, Intervals
from taskyard.beat.engine.publisher import CeleryPublisher
from taskyard.beat.engine.store import BeatStore
from taskyard.beat.entries import Entry
from taskyard.beat.metrics import BeatMetrics
from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.settings.loading import current_settings
from tests.beat.beat_platform import BeatPlatform

START = datetime(2027, 3, 1, 12, tzinfo=UTC)
EAGER = Intervals(
    poll=timedelta(0),  # each tick looks for changes
    stand_by=timedelta(0),
    repair=timedelta(0),
    prune=timedelta(0),
    patience=timedelta(0),
)


class TurnedClock:
    """Stands still until the test turns it; what the broker's clock says is not heard."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        """Return the moment."""
        return self.moment

    def heard(self, server_time: datetime) -> None:
        """Ignore the broker's clock."""

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.moment += timedelta(seconds=seconds)


class BeatSimulation(BeatPlatform):
    """A platform whose beat processes are engines of this process."""

    clock: TurnedClock
    timetable: tuple[Entry[Any], ...] = ()

    def engine(self, *, ahead: float = 0, retention: float = 0, pace: Intervals = EAGER) -> Engine:
        """Make one more engine; `ahead` in seconds, `retention` in days."""
        settings = current_settings()
        store, metrics = BeatStore(self.database.engine), BeatMetrics()
        lease = LeaderLease(self.server.client(), settings.taskyard_key_prefix, pace.lease)
        publisher = CeleryPublisher(app, self.client, settings)
        grace = timedelta(seconds=60)
        return Engine(
            store,
            lease,
            self.clock,
            Firing(store, publisher, lease, self.clock, metrics=metrics, grace=grace),
            metrics,
            deploy=partial(_deploy, self),
            ahead=timedelta(seconds=ahead),
            retention=timedelta(days=retention),
            pace=pace,
        )

    def plant(self, name: str = "job", **fields: Any) -> Schedule:
        """Save a schedule whose slots begin at the turned clock's time; by default every second."""
        row = self.add(name, **fields)
        self.set(name, cursor=self.clock.moment)
        return row

    def set(self, name: str, **columns: Any) -> None:
        """Write columns of a schedule, as a change that leaders see."""
        with self.database.session() as session, session.begin():
            row = catalog.find(session, name)
            for column, value in columns.items():
                setattr(row, column, value)
            catalog.touch(session, row, "tests")

    def change(self, act: Callable[..., Any], *words: Any, **options: Any) -> None:
        """Do what an operator does, at the turned clock's time."""
        with self.database.session() as session, session.begin():
            act(session, *words, **options)

    def finish(self, run_ids: Iterable[UUID]) -> None:
        """Take the messages of runs out of the broker, as if a worker had done them."""
        for run_id in run_ids:
            self.client.delete(f"taskyard:message:{run_id}")

    def outcomes(self, name: str = "job") -> list[tuple[float, str]]:
        """Seconds since the start, and outcome, of each fire."""
        return [((fire.slot - START).total_seconds(), fire.state) for fire in self.fires(name)]

    def slots(self, name: str = "job", state: str = "published") -> list[float]:
        """Seconds since the start of the fires in this state."""
        return [seconds for seconds, found in self.outcomes(name) if found == state]

    def newest(self, name: str = "job") -> ScheduleFire:
        """Read the newest fire."""
        return self.fires(name)[-1]


def definition(**fields: Any) -> Definition:
    """A definition of the test task, every second."""
    given: dict[str, Any] = {
        "name": "job",
        "task": "tests.mark",
        "kind": "every",
        "expression": "1",
        "args": {"label": "x"},
    }
    return Definition(**(given | fields))


def play(simulation: BeatSimulation, engine: Engine, seconds: int) -> None:
    """Let seconds pass, with a tick in each."""
    for _ in range(seconds):
        simulation.clock.turn(1)
        engine.tick()


def _deploy(simulation: BeatSimulation) -> None:
    deploy(simulation.database.engine, simulation.timetable)
