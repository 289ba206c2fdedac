"""One tick of the scheduler: lead or stand by, follow changes, fire due slots, survive outages."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from taskyard.beat.engine.agenda import Agenda
from taskyard.beat.engine.clock import Clock
from taskyard.beat.engine.firing import Firing
from taskyard.beat.engine.leadership import LeaderLease
from taskyard.beat.engine.schedule_loading import arm, can_fire
from taskyard.beat.engine.store import BeatStore
from taskyard.beat.errors import CursorMovedError, DefinitionsChangedError, InvalidScheduleError, StaleLeaderError
from taskyard.beat.metrics import BeatMetrics

BATCH = 500  # schedules that are settled in one transaction
BATCHES = 50  # in one tick; then the loop gets a chance to end
PRUNED = 5000  # fires deleted in one go
PREPARED = 100  # messages that are made in one tick
PREPARED_AHEAD = timedelta(seconds=30)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the leader does what; real time, whatever clock the slots follow."""

    lease: timedelta = timedelta(seconds=5)
    poll: timedelta = timedelta(milliseconds=250)  # looks for changed definitions; also the longest pause of a leader
    stand_by: timedelta = timedelta(seconds=1)  # between two looks at the lease
    repair: timedelta = timedelta(seconds=5)
    prune: timedelta = timedelta(minutes=10)
    patience: timedelta = timedelta(seconds=2)  # with a database that does not answer, before the lead is given up


class Engine:
    """Everything of one beat process, apart from Celery."""

    def __init__(  # noqa: PLR0913 - its dependencies
        self,
        store: BeatStore,
        lease: LeaderLease,
        clock: Clock,
        firing: Firing,
        metrics: BeatMetrics,
        *,
        deploy: Callable[[], None],
        ahead: timedelta,
        retention: timedelta,
        pace: Intervals,
    ) -> None:
        """Make an engine, no I/O yet; `deploy` saves the code's timetable, `retention` 0 keeps all fires."""
        self.metrics = metrics
        self._store, self._lease, self._clock, self._firing = store, lease, clock, firing
        self._deploy, self._ahead, self._retention, self._pace = deploy, ahead, retention, pace
        self._agenda = Agenda()
        self._token = 0  # of the leadership whose schedules are loaded
        self._changes = -1  # number of the newest change that is loaded
        self._last: dict[str, float] = {}  # when each regular duty was done last, monotonic seconds
        self._failing_since: float | None = None  # the database
        self._is_broker_lost = False
        self._is_ending = False

    def end_soon(self) -> None:
        """Start no further batch in this tick."""
        self._is_ending = True

    def tick(self) -> float:
        """Do the work that is due; return the seconds until the next tick."""
        began = time.monotonic()
        try:
            pause = self._work() if self._leads() else self._pace.stand_by.total_seconds()
        except StaleLeaderError as error:
            log.warning("beat.fenced_off", reason=str(error))
            self._stand_down()
            pause = self._pace.stand_by.total_seconds()
        except DefinitionsChangedError:
            self._last.pop("poll", None)
            pause = 0.0
        except CursorMovedError as error:
            log.warning("beat.cursors_moved", reason=str(error))
            self._changes, pause = -1, 0.0
            self._last.pop("poll", None)
        except SQLAlchemyError as error:
            pause = self._database_failed(error)
        except RedisError as error:
            pause = self._broker_failed(error)
        self.metrics.last_tick = time.monotonic() - began
        self.metrics.is_leader = self._token > 0
        self.metrics.schedules = len(self._agenda)
        return pause

    def close(self) -> None:
        """Release the lead, so that another process takes over at its next check."""
        had_lead, self._token = self._token > 0, 0
        if had_lead or self._lease.token:
            try:
                self._lease.release()
            except RedisError as error:
                log.warning("beat.release_failed", reason=str(error))
            else:
                log.info("beat.released", owner=self._lease.owner)

    def _leads(self) -> bool:
        """Renew the lead or try to take it; only a process whose database answers may take it."""
        if self._token and self._lease.is_held() and self._lease.age() < self._pace.lease / 5:
            return True
        above = 0 if self._token else self._store.highest_token()
        token = self._lease.hold(above)
        if self._lease.server_time is not None:
            self._clock.heard(self._lease.server_time)
        if self._is_broker_lost:
            self._is_broker_lost = False
            log.info("beat.broker_back")
        if token == 0:
            self._stand_down()
            self._database_answered()
            return False
        if token != self._token:
            self._take_over(token)
        return True

    def _take_over(self, token: int) -> None:
        """Start to lead; if our own lease merely lapsed and nobody led in between, keep the loaded schedules."""
        before = self._store.take_over(token, self._lease.owner, self._clock.now())
        if self._token and before == self._token:
            self._token = token
            log.warning("beat.lease_lapsed", owner=self._lease.owner, token=token)
            return
        self._stand_down()
        self._deploy()
        self._load()
        self._token = token
        self.metrics.takeovers += 1
        log.info("beat.leads", owner=self._lease.owner, token=token, schedules=len(self._agenda))

    def _stand_down(self) -> None:
        if self._token:
            log.warning("beat.lead_lost", owner=self._lease.owner, token=self._token)
        self._token, self._changes = 0, -1
        self._agenda.clear()
        self._last.clear()

    def _work(self) -> float:
        if self._is_time("poll", self._pace.poll) and self._store.changes() != self._changes:
            self._load()
        if self._is_time("repair", self._pace.repair):
            self._firing.repair(self._clock.now())
        try:
            if not self._fire_due():
                return 0.0
        finally:
            self._firing.settle()
        if self._retention and self._is_time("prune", self._pace.prune):
            self._store.prune(self._clock.now() - self._retention, PRUNED)
        self._database_answered()
        return self._pause() if self._prepare() < PREPARED else 0.0

    def _fire_due(self) -> bool:
        """Fire in batches of one transaction each, while the previous batch is being sent; False: lead lost."""
        for _ in range(BATCHES):
            now = self._clock.now()
            batch = self._agenda.awake_by(now, BATCH)
            if not batch or self._is_ending:
                break
            self._firing.fire(self._agenda, batch, self._changes, now)
            if not self._leads():
                return False
        return True

    def _prepare(self) -> int:
        """Prepare messages of coming slots while idle, so that many slots in one second are sent at once."""
        now, wake = self._clock.now(), self._agenda.next_wake()
        if self._is_ending or wake is None or wake <= now:
            return 0
        coming = self._agenda.to_prepare(now + PREPARED_AHEAD, PREPARED)
        self._firing.prepare(coming, now)
        return len(coming)

    def _pause(self) -> float:
        longest = self._pace.poll.total_seconds()
        wake = self._agenda.next_wake()
        if wake is None:
            return longest
        return min(longest, max((wake - self._clock.now()).total_seconds(), 0.0))

    def _load(self) -> None:
        """Load definitions changed since the last load; all of them the first time."""
        number = self._store.changes()
        rows, ids = self._store.definitions(self._changes)
        gone = self._agenda.others(ids)
        for row in rows:
            if not can_fire(row):
                gone |= {row.id} if self._agenda.get(row.id) else set()
                continue
            self._renew_if_old()
            try:
                self._agenda.put(arm(row, self._ahead))
            except InvalidScheduleError as error:
                self._agenda.drop(row.id)
                log.error("schedule.invalid", schedule=row.name, reason=str(error))  # noqa: TRY400 - the reason says it
        self._changes = number
        for schedule_id in gone:
            self._agenda.drop(schedule_id)
        if gone:
            self._firing.withdraw(gone, self._clock.now())

    def _renew_if_old(self) -> None:
        """Renew the lease during long work; losing it is noticed at the next write."""
        if self._lease.is_held() and self._lease.age() > self._pace.lease / 5:
            self._lease.hold()

    def _is_time(self, duty: str, every: timedelta) -> bool:
        now = time.monotonic()
        if duty in self._last and now - self._last[duty] < every.total_seconds():
            return False
        self._last[duty] = now
        return True

    def _database_failed(self, error: SQLAlchemyError) -> float:
        """Log an outage once; if it lasts, release the lead for a process whose database answers."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("beat.database_lost", reason=str(error).splitlines()[0])
        if now - self._failing_since >= self._pace.patience.total_seconds() and self._lease.token:
            self.close()
        if not self._lease.token:
            self._stand_down()
        return self._pace.poll.total_seconds()

    def _database_answered(self) -> None:
        if self._failing_since is not None:
            log.info("beat.database_back", seconds=round(time.monotonic() - self._failing_since, 1))
            self._failing_since = None

    def _broker_failed(self, error: RedisError) -> float:
        """Log an outage once; a lead that cannot be renewed expires."""
        if not self._is_broker_lost:
            self._is_broker_lost = True
            log.warning("beat.broker_lost", reason=str(error))
        if self._token and not self._lease.is_held():
            self._stand_down()
        return self._pace.poll.total_seconds()
