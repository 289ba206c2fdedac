"""Fire due schedules: decide, insert the fires, publish the messages, record that they were published."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import structlog

from taskyard.beat.engine.agenda import Agenda, ArmedSchedule
from taskyard.beat.engine.clock import Clock
from taskyard.beat.engine.leadership import LeaderLease
from taskyard.beat.engine.overlap import unfinished_runs
from taskyard.beat.engine.planning import Horizon, Plan, plan, run_id_of
from taskyard.beat.engine.publisher import BROKER_ERRORS, PreparedMessage, Publisher, SlotMessage, SlotRefusedError
from taskyard.beat.engine.store import Advance, BeatStore, Published
from taskyard.beat.metrics import BeatMetrics

LEFT_OVER = timedelta(seconds=3)  # after this long, the leader repairs a fire that has no message
PER_CALL = 250  # messages of one call to the broker
REPAIRS = 200  # fires repaired at once
ZERO = timedelta(0)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Decision:
    """Slots of one schedule to fire and to skip now."""

    armed: ArmedSchedule
    plan: Plan
    fires: tuple[datetime, ...]
    skipped: tuple[datetime, ...]  # because the previous run is unfinished


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A call to the broker that may still be unanswered."""

    future: Future[datetime]
    messages: Sequence[SlotMessage]
    refused: dict[UUID, str]


class Firing:
    """Everything that the leader writes and publishes about slots."""

    def __init__(  # noqa: PLR0913 - its dependencies
        self,
        store: BeatStore,
        publisher: Publisher,
        lease: LeaderLease,
        clock: Clock,
        *,
        metrics: BeatMetrics,
        grace: timedelta,
    ) -> None:
        self._store = store
        self._clock = clock
        self._publisher = publisher
        self._lease = lease
        self._metrics = metrics
        self._grace = grace
        self._sender = ThreadPoolExecutor(1, "publisher")
        self._in_flight: deque[_InFlight] = deque()  # oldest first
        self._in_flight_before = 0  # calls of earlier batches among them
        self._has_failed = False  # a call failed since the last time that none was in flight

    def fire(self, agenda: Agenda, batch: Sequence[ArmedSchedule], changes: int, now: datetime) -> None:
        """
        Settle all slots of these schedules up to now.

        Rows are committed before the first message is sent, so a crash leaves pending fires, never unknown messages.

        Raises:
            StaleLeaderError: Another process leads; nothing was written or sent.
            DefinitionsChangedError: Decided on outdated definitions; nothing was written or sent.
            CursorMovedError: Decided on outdated cursors; nothing was written or sent.
        """
        decisions = self._decide(batch, now)
        rows = [row for decision in decisions for row in self._rows(decision, now)]
        advances = [_advance(decision, now) for decision in decisions]
        written = self._store.record(self._lease.token, changes, rows, advances)
        ready = {p.message.run_id: p for armed in batch if (p := armed.prepared) is not None}
        messages = [_message(decision.armed, slot) for decision in decisions for slot in decision.fires]
        for decision in decisions:
            self._move_on(agenda, decision)
        self._publish([message for message in messages if message.run_id in written], now, ready)

    def prepare(self, coming: Iterable[ArmedSchedule], now: datetime) -> None:
        """Prepare the messages of the next slots of these schedules, and compute the slots after; nothing is sent."""
        for armed in coming:
            slot = armed.series.after(armed.cursor)
            if slot is None:
                continue
            armed.series.after(slot)
            try:
                armed.prepared = self._publisher.prepare(_message(armed, slot), now)
            except SlotRefusedError:
                continue  # logged when it is due
            except BROKER_ERRORS:
                return  # as above; the messages are then made when they are due

    def repair(self, now: datetime) -> int:
        """
        Publish fires whose rows say that they were never published; return how many there were.

        A run in the history was published. If it was published but neither recorded nor in the history yet, the broker
        refuses the second message.
        """
        rows = self._store.pending(now - LEFT_OVER, REPAIRS)
        known = self._store.known_to_history([row.id for row in rows]) if rows else set()
        self._store.published([Published(row.id, now, ZERO) for row in rows if row.id in known])
        left = [row for row in rows if row.id not in known]
        off = [row for row in left if row.name is None or (row.is_off and not row.is_manual)]
        late = [row for row in left if row not in off and row.misfire == "skip" and now - row.due_at > self._grace]
        self._close([row.id for row in off], "withdrawn", "the schedule was stopped before its message was sent")
        self._close([row.id for row in late], "missed", "its message could not be sent in time")
        messages = [_left_over(row) for row in left if row not in off and row not in late]
        self._publish(messages, now)
        if rows:
            log.warning("beat.fires_repaired", count=len(rows), known=len(known), off=len(off), late=len(late))
        return len(rows)

    def withdraw(self, schedule_ids: Iterable[UUID], now: datetime) -> None:
        """Cancel runs that were enqueued ahead for schedules that have stopped."""
        run_ids = self._store.published_ahead(schedule_ids, now)
        if run_ids:
            self._close(run_ids, "withdrawn", "the schedule was stopped before the slot")
            self._publisher.withdraw(run_ids, "schedule stopped")

    def _decide(self, batch: Sequence[ArmedSchedule], now: datetime) -> list[_Decision]:
        busy = self._busy(batch, now)
        decisions = []
        for armed in batch:
            horizon = Horizon(now, armed.ahead, self._grace)
            planned = plan(armed.series, armed.shift, (armed.misfire, armed.misfire_limit), armed.cursor, horizon)
            count = len(planned.fires)
            if armed.skips_overlap:  # at most one, and none while the previous run is unfinished
                count = 0 if armed.last_run_id in busy else min(count, 1)
            split = len(planned.fires) - count
            decisions.append(_Decision(armed, planned, planned.fires[split:], planned.fires[:split]))
        return decisions

    def _move_on(self, agenda: Agenda, decision: _Decision) -> None:
        armed = decision.armed
        armed.cursor = decision.plan.cursor
        if decision.fires:
            armed.last_run_id = run_id_of(armed.id, decision.fires[-1])
        agenda.put(armed)
        self._metrics.fires["skipped"] += len(decision.skipped)
        self._metrics.fires["missed"] += decision.plan.missed

    def _busy(self, batch: Sequence[ArmedSchedule], now: datetime) -> set[UUID]:
        """Return the unfinished last runs of the schedules that must not overlap."""
        last_runs = [armed.last_run_id for armed in batch if armed.skips_overlap and armed.last_run_id is not None]
        return unfinished_runs(self._store, self._publisher, last_runs, now)

    def _rows(self, decision: _Decision, now: datetime) -> Iterable[dict[str, Any]]:
        planned = decision.plan
        for state, slots in (("pending", decision.fires), ("skipped", decision.skipped)):
            for slot in slots:
                yield self._row(decision.armed, slot, state, now)
        if planned.newest_missed is not None:
            row = self._row(decision.armed, planned.newest_missed, "missed", now)
            yield row | {"slots": planned.missed, "error": None if planned.is_exact else "and more before"}

    def _row(self, armed: ArmedSchedule, slot: datetime, state: str, now: datetime) -> dict[str, Any]:
        return {
            "id": run_id_of(armed.id, slot),
            "schedule_id": armed.id,
            "slot": slot,
            "due_at": slot + armed.shift,
            "state": state,
            "is_manual": False,
            "slots": 1,
            "fence": self._lease.token,
            "error": None,
            "recorded_at": now,
        }

    def _publish(
        self,
        messages: Sequence[SlotMessage],
        now: datetime,
        ready: Mapping[UUID, PreparedMessage] = MappingProxyType({}),
    ) -> None:
        """
        Send in few calls to the broker, and record those of the previous batch as published.

        Messages that could not be sent stay pending for the repair.
        """
        for begin in range(0, len(messages), PER_CALL):
            if not self._lease.is_held():
                break  # another leader may be publishing these by now
            part = messages[begin : begin + PER_CALL]
            refused: dict[UUID, str] = {}
            try:
                prepared = [ready.get(message.run_id) or self._prepare_now(message, now, refused) for message in part]
            except BROKER_ERRORS as error:
                log.warning("beat.publish_failed", left=len(messages) - begin, reason=str(error))
                break
            future = self._sender.submit(self._send, [one for one in prepared if one is not None])
            self._in_flight.append(_InFlight(future, part, refused))
        self.settle(self._in_flight_before)
        self._in_flight_before = len(self._in_flight)

    def settle(self, count: int | None = None) -> None:
        """Wait for the `count` oldest calls to the broker (None: all) and record what was sent."""
        for _ in range(len(self._in_flight) if count is None else count):
            sent = self._in_flight.popleft()
            try:
                at = sent.future.result()
            except CancelledError:
                continue
            except BROKER_ERRORS as error:
                log.warning("beat.publish_failed", left=len(sent.messages), reason=str(error))
            else:
                self._note(sent.messages, sent.refused, at)
        self._in_flight_before = 0
        if not self._in_flight:
            self._has_failed = False

    def _send(self, prepared: Sequence[PreparedMessage]) -> datetime:
        """Send in the background while the engine writes the next fires; return when the messages arrived."""
        if self._has_failed:
            raise CancelledError  # it would wait for the same timeout again
        try:
            self._publisher.send(prepared)
        except BROKER_ERRORS:
            self._has_failed = True
            raise
        return self._clock.now()

    def _prepare_now(self, message: SlotMessage, now: datetime, refused: dict[UUID, str]) -> PreparedMessage | None:
        try:
            return self._publisher.prepare(message, now)
        except SlotRefusedError as error:
            log.error("schedule.refused", schedule=message.schedule, reason=str(error))  # noqa: TRY400 - the reason says it
            refused[message.run_id] = str(error)
            return None

    def _note(self, sent: Sequence[SlotMessage], refused: dict[UUID, str], at: datetime) -> None:
        published = [Published(m.run_id, at, max(at - m.due, ZERO)) for m in sent if m.run_id not in refused]
        self._store.published(published)
        for fire in published:
            self._metrics.published(fire.lag)
        for run_id, reason in refused.items():
            self._close([run_id], "refused", reason)

    def _close(self, run_ids: Sequence[UUID], state: str, reason: str) -> None:
        if run_ids:
            self._store.close(self._lease.token, run_ids, state, reason)
            self._metrics.fires[state] += len(run_ids)


def _advance(decision: _Decision, now: datetime) -> Advance:
    fires = decision.fires
    return Advance(
        schedule_id=decision.armed.id,
        since=decision.armed.cursor,
        cursor=decision.plan.cursor,
        last_slot=fires[-1] if fires else None,
        last_run_id=run_id_of(decision.armed.id, fires[-1]) if fires else None,
        fired_at=now if fires else None,
        fired=len(fires),
        skipped=len(decision.skipped),
        missed=decision.plan.missed,
    )


def _message(armed: ArmedSchedule, slot: datetime) -> SlotMessage:
    return SlotMessage(
        run_id=run_id_of(armed.id, slot),
        schedule=armed.name,
        slot=slot,
        due=slot + armed.shift,
        task=armed.task,
        args=armed.args,
        priority=armed.priority,
    )


def _left_over(row: Any) -> SlotMessage:
    return SlotMessage(
        run_id=row.id,
        schedule=row.name,
        slot=row.slot,
        due=row.due_at,
        task=row.task,
        args=row.args,
        priority=row.priority,
    )
