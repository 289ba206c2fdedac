"""From schedules that are due to messages in the broker: decide, write the fires, publish, and note it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

import structlog

from taskyard.beat.engine.agenda import Agenda, Armed
from taskyard.beat.engine.clock import Clock
from taskyard.beat.engine.leadership import Lease
from taskyard.beat.engine.planning import Horizon, Plan, plan, run_id_of
from taskyard.beat.engine.publisher import BROKER_ERRORS, Message, Prepared, Publisher, RefusedError
from taskyard.beat.engine.store import Advance, BeatStore, Published
from taskyard.beat.metrics import BeatMetrics

LEFT_OVER = timedelta(seconds=3)  # a fire without a message is taken up by the leader after so long
PER_CALL = 250  # messages of one call to the broker
REPAIRS = 200  # fires taken up in one go
ZERO = timedelta(0)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Decision:
    """What one schedule does now."""

    armed: Armed
    plan: Plan
    fires: tuple[datetime, ...]
    skipped: tuple[datetime, ...]  # because the run before is not done


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A call to the broker that may not be answered yet."""

    future: Future[datetime]
    messages: Sequence[Message]
    refused: dict[UUID, str]


class Firing:
    """The leader's hands: everything it writes and publishes about slots."""

    def __init__(  # noqa: PLR0913 - the engine's parts
        self,
        store: BeatStore,
        publisher: Publisher,
        lease: Lease,
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
        self._under_way: deque[_UnderWay] = deque()  # oldest first
        self._under_way_before = 0  # of these, calls of an earlier batch
        self._has_failed = False  # a call since the last time that none was under way

    def fire(self, agenda: Agenda, batch: Sequence[Armed], changes: int, now: datetime) -> None:
        """
        Settle all slots of these schedules up to now.

        The rows are written before the first message is sent, so a crash leaves fires that are pending, never messages
        that nobody knows of.

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

    def prepare(self, coming: Iterable[Armed], now: datetime) -> None:
        """Make the messages of the next slots of these schedules, and find the slots after them; nothing is sent."""
        for armed in coming:
            slot = armed.series.after(armed.cursor)
            if slot is None:
                continue
            armed.series.after(slot)
            try:
                armed.prepared = self._publisher.prepare(_message(armed, slot), now)
            except RefusedError:
                continue  # said when it is due
            except BROKER_ERRORS:
                return  # as above; without it, messages are made when they are sent

    def repair(self, now: datetime) -> int:
        """
        Take up fires that were written but, as far as the rows tell, never published; return how many there were.

        A run that the audit knows was published. One that was published without a note, and is unknown to the audit
        yet, is refused by the broker the second time.
        """
        rows = self._store.pending(now - LEFT_OVER, REPAIRS)
        known = self._store.known_to_audit([row.id for row in rows]) if rows else set()
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
        """Cancel what was enqueued ahead for schedules that have stopped."""
        run_ids = self._store.published_ahead(schedule_ids, now)
        if run_ids:
            self._close(run_ids, "withdrawn", "the schedule was stopped before the slot")
            self._publisher.withdraw(run_ids, "schedule stopped")

    def _decide(self, batch: Sequence[Armed], now: datetime) -> list[_Decision]:
        busy = self._busy(batch, now)
        decisions = []
        for armed in batch:
            horizon = Horizon(now, armed.ahead, self._grace)
            planned = plan(armed.series, armed.shift, (armed.misfire, armed.misfire_limit), armed.cursor, horizon)
            count = len(planned.fires)
            if armed.skips_overlap:  # at most one, and none while the run before goes on
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

    def _busy(self, batch: Sequence[Armed], now: datetime) -> set[UUID]:
        """Return the runs that are not done, of the schedules that must not overlap: the broker's word counts."""
        last_runs = [armed.last_run_id for armed in batch if armed.skips_overlap and armed.last_run_id is not None]
        if not last_runs:
            return set()
        unfinished = self._store.unfinished(last_runs, now)
        return unfinished.unsent | self._publisher.going_on(unfinished.sent - unfinished.unsent)

    def _rows(self, decision: _Decision, now: datetime) -> Iterable[dict[str, Any]]:
        planned = decision.plan
        for state, slots in (("pending", decision.fires), ("skipped", decision.skipped)):
            for slot in slots:
                yield self._row(decision.armed, slot, state, now)
        if planned.newest_missed is not None:
            row = self._row(decision.armed, planned.newest_missed, "missed", now)
            yield row | {"slots": planned.missed, "error": None if planned.is_exact else "and more before"}

    def _row(self, armed: Armed, slot: datetime, state: str, now: datetime) -> dict[str, Any]:
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
        self, messages: Sequence[Message], now: datetime, ready: Mapping[UUID, Prepared] = MappingProxyType({})
    ) -> None:
        """
        Send in few calls to the broker, and note those of the batch before.

        What is not sent stays pending, for the repair.
        """
        for begin in range(0, len(messages), PER_CALL):
            if not self._lease.is_held():
                break  # somebody else may be publishing these by now
            part = messages[begin : begin + PER_CALL]
            refused: dict[UUID, str] = {}
            try:
                prepared = [ready.get(message.run_id) or self._prepare_now(message, now, refused) for message in part]
            except BROKER_ERRORS as error:
                log.warning("beat.publish_failed", left=len(messages) - begin, reason=str(error))
                break
            future = self._sender.submit(self._send, [one for one in prepared if one is not None])
            self._under_way.append(_UnderWay(future, part, refused))
        self.settle(self._under_way_before)
        self._under_way_before = len(self._under_way)

    def settle(self, count: int | None = None) -> None:
        """Wait for the `count` oldest calls to the broker, None for all of them, and note what was sent."""
        for _ in range(len(self._under_way) if count is None else count):
            sent = self._under_way.popleft()
            try:
                at = sent.future.result()
            except CancelledError:
                continue
            except BROKER_ERRORS as error:
                log.warning("beat.publish_failed", left=len(sent.messages), reason=str(error))
            else:
                self._note(sent.messages, sent.refused, at)
        self._under_way_before = 0
        if not self._under_way:
            self._has_failed = False

    def _send(self, prepared: Sequence[Prepared]) -> datetime:
        """Run beside the engine, which writes the next fires meanwhile; return when the messages were there."""
        if self._has_failed:
            raise CancelledError  # it would wait as long as the one before
        try:
            self._publisher.send(prepared)
        except BROKER_ERRORS:
            self._has_failed = True
            raise
        return self._clock.now()

    def _prepare_now(self, message: Message, now: datetime, refused: dict[UUID, str]) -> Prepared | None:
        try:
            return self._publisher.prepare(message, now)
        except RefusedError as error:
            log.error("schedule.refused", schedule=message.schedule, reason=str(error))  # noqa: TRY400 - the reason says it
            refused[message.run_id] = str(error)
            return None

    def _note(self, sent: Sequence[Message], refused: dict[UUID, str], at: datetime) -> None:
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


def _message(armed: Armed, slot: datetime) -> Message:
    return Message(
        run_id=run_id_of(armed.id, slot),
        schedule=armed.name,
        slot=slot,
        due=slot + armed.shift,
        task=armed.task,
        args=armed.args,
        priority=armed.priority,
    )


def _left_over(row: Any) -> Message:
    return Message(
        run_id=row.id,
        schedule=row.name,
        slot=row.slot,
        due=row.due_at,
        task=row.task,
        args=row.args,
        priority=row.priority,
    )
