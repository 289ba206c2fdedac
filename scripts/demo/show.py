"""The course of the demo: register three receivers, emit a market feed, wait until everything is settled, count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from scripts.demo import counting
from scripts.demo.feed import market_feed
from scripts.demo.receivers import Subscriber
from scripts.demo.stage import Stage
from taskyard.database.engine import open_session
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.outbox import emit

EVENTS = 200
PER_SECOND = 10  # of events; three deliveries each
SETTLE_LIMIT = 300.0  # seconds after the last event
LOOK_EVERY = 0.25  # seconds


class DemoError(RuntimeError):
    """The demo did not end as it must; one line per difference."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was counted."""

    tallies: Sequence[counting.Tally]
    dead_letters: int
    runs: Mapping[str, int]  # of webhooks.deliver in the audit, by state
    took: timedelta

    def check(self) -> None:
        """
        Compare with what must be.

        Raises:
            DemoError: Something is not as it must be.
        """
        found = [line for tally in self.tallies for line in tally.differences(EVENTS)]
        exhausted = sum(tally.exhausted for tally in self.tallies)
        if self.dead_letters != exhausted:
            found.append(f"{self.dead_letters} dead letters, expected {exhausted}")
        if self.runs.get("failed", 0) != self.dead_letters:
            found.append(f"the audit has {self.runs.get('failed', 0)} failed runs, expected {self.dead_letters}")
        if found:
            raise DemoError("\n".join(found))


def run_show(console: Console, subscribers: Sequence[Subscriber], stage: Stage) -> Outcome:
    """
    Run it on a stage that is up, with receivers that listen.

    Raises:
        DemoError: Not all was settled in time.
        StageError: A process ended meanwhile.
    """
    _register(subscribers)
    begin = monotonic()
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = _Bars(progress, deliveries=EVENTS * len(subscribers), dead=EVENTS)
        emitted = _emit_all(bars, stage)
        _wait_until(lambda: bars.update() >= bars.deliveries, stage, "deliveries settled")
        _wait_until(lambda: bars.update_dead() >= bars.dead, stage, "dead letters buried")
        _wait_until(lambda: _runs().get("failed", 0) >= bars.dead, stage, "runs recorded")
    took = timedelta(seconds=monotonic() - begin)
    with open_session() as session:
        tallies = [counting.tally(session, subscriber, emitted) for subscriber in subscribers]
        return Outcome(tallies, counting.dead_letters(session), counting.runs_by_state(session), took)


class _Bars:
    """Three progress bars that follow the database."""

    def __init__(self, progress: Progress, *, deliveries: int, dead: int) -> None:
        self.deliveries = deliveries
        self.dead = dead
        self._progress = progress
        self._emitted = progress.add_task("events emitted", total=EVENTS)
        self._settled = progress.add_task("deliveries settled", total=deliveries)
        self._buried = progress.add_task("dead letters", total=dead)

    def one_more_event(self) -> None:
        self._progress.advance(self._emitted)

    def update(self) -> int:
        self.update_dead()
        with open_session() as session:
            return self._show(self._settled, counting.settled(session))

    def update_dead(self) -> int:
        with open_session() as session:
            return self._show(self._buried, counting.dead_letters(session))

    def _show(self, bar: TaskID, count: int) -> int:
        self._progress.update(bar, completed=count)
        return count


def _register(subscribers: Sequence[Subscriber]) -> None:
    with open_session() as session, session.begin():
        for one in subscribers:
            options = endpoints.EndpointOptions(description=one.name)
            row, one.secret = endpoints.register(session, current_settings(), one.receiver.url, one.patterns, options)
            one.endpoint_id = str(row.id)


def _emit_all(bars: _Bars, stage: Stage) -> dict[str, datetime]:
    """Emit the feed at its pace; return when each event was emitted, by its id."""
    emitted: dict[str, datetime] = {}
    begin = monotonic()
    for number, event in enumerate(market_feed(EVENTS)):
        sleep(max(0.0, begin + number / PER_SECOND - monotonic()))
        at = datetime.now(UTC)
        with open_session() as session, session.begin():  # an app would write its own change here, too
            emitted[emit(session, event.type, event.data)] = at
        bars.one_more_event()
        if number % PER_SECOND == 0:
            bars.update()
            stage.check()
    return emitted


def _runs() -> dict[str, int]:
    with open_session() as session:
        return counting.runs_by_state(session)


def _wait_until(is_done: Callable[[], bool], stage: Stage, awaited: str) -> None:
    deadline = monotonic() + SETTLE_LIMIT
    while not is_done():
        stage.check()
        if monotonic() > deadline:
            raise DemoError(f"not all {awaited} within {SETTLE_LIMIT:g} s")
        sleep(LOOK_EVERY)
