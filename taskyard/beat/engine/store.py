"""The leader's SQL: each write first checks that no newer leader has written and no definition has changed."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from taskyard.beat.errors import CursorMovedError, DefinitionsChangedError, StaleLeaderError
from taskyard.beat.models import BeatState, Schedule, ScheduleFire
from taskyard.history.models import FINAL_STATES, Run

LEADER, CHANGES = "leader", "changes"
UNKNOWN_RUN_LIMIT = timedelta(hours=1)  # a run that is not in the history counts as unfinished for this long
CHUNK = 500  # rows, or values of an IN list, in one statement

_schedules: Any = Schedule.__table__  # type: ignore[attr-defined]  # SQLModel adds it
_fires: Any = ScheduleFire.__table__  # type: ignore[attr-defined]
_states: Any = BeatState.__table__  # type: ignore[attr-defined]
_runs: Any = Run.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Advance:
    """Progress of one schedule in one tick: its new cursor and additions to its counters."""

    schedule_id: UUID
    since: datetime  # the cursor that the leader decided on
    cursor: datetime
    last_slot: datetime | None  # None: nothing was fired
    last_run_id: UUID | None
    fired_at: datetime | None
    fired: int
    skipped: int
    missed: int


@dataclass(frozen=True, slots=True)
class Published:
    """A fire whose message is in the broker."""

    fire_id: UUID
    at: datetime
    lag: timedelta  # 0 when it was published ahead


class BeatStore:
    """All SQL of the leader, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def highest_token(self) -> int:
        """Return the highest fencing token in the database, 0 for none; also checks that it answers."""
        with self._engine.begin() as connection:
            return connection.execute(select(_states.c.value).where(_states.c.name == LEADER)).scalar() or 0

    def take_over(self, token: int, holder: str, now: datetime) -> int:
        """
        Fence off all leaders with a lower token; return the token of the previous one, 0 for none.

        Raises:
            StaleLeaderError: There was a higher one.
        """
        with self._engine.begin() as connection:
            _ensure_states(connection)
            locked = select(_states.c.value).where(_states.c.name == LEADER).with_for_update()
            before: int = connection.execute(locked).scalar_one()
            changed = connection.execute(
                update(_states)
                .where(_states.c.name == LEADER, _states.c.value <= token)
                .values(value=token, holder=holder, at=now)
            )
            if changed.rowcount != 1:
                raise StaleLeaderError(f"token {token} is older than {before}")
            return before

    def changes(self) -> int:
        """Return the number of the newest change of any definition."""
        with self._engine.begin() as connection:
            return connection.execute(select(_states.c.value).where(_states.c.name == CHANGES)).scalar() or 0

    def definitions(self, since: int) -> tuple[list[Row[Any]], set[UUID]]:
        """Return the schedules changed after change number `since`, and the ids of all schedules."""
        with self._engine.begin() as connection:
            changed = list(connection.execute(_DEFINITIONS, {"since": since}))
            return changed, set(connection.execute(select(_schedules.c.id)).scalars())

    def record(
        self, token: int, changes: int, fires: Sequence[dict[str, Any]], advances: Sequence[Advance]
    ) -> set[UUID]:
        """
        Insert the fires of a tick and advance their schedules, in one transaction.

        Returns the ids of the new fires: a slot that has a fire already is not fired again.

        Raises:
            StaleLeaderError: A newer leader has written; nothing was.
            DefinitionsChangedError: The decision was made on outdated definitions; nothing was written.
            CursorMovedError: The decision was made on outdated cursors; nothing was written.
        """
        with self._engine.begin() as connection:
            self.prove(connection, token, changes)
            _compare(connection, advances)
            written: set[UUID] = set()
            for begin in range(0, len(fires), CHUNK):
                inserted = connection.execute(_insert_new(connection), list(fires[begin : begin + CHUNK]))
                written.update(inserted.scalars())
            if advances:
                connection.execute(_ADVANCE, [_advance_values(advance) for advance in advances])
            return written

    def published(self, fires: Iterable[Published]) -> None:
        """Record that messages are in the broker."""
        together: dict[tuple[datetime, int], list[UUID]] = {}
        for fire in fires:
            together.setdefault((fire.at, fire.lag // timedelta(milliseconds=1)), []).append(fire.fire_id)
        if together:
            with self._engine.begin() as connection:
                for (at, lag_ms), ids in together.items():
                    values = {"state": "published", "published_at": at, "lag_ms": lag_ms}
                    for begin in range(0, len(ids), CHUNK):
                        of_these = _fires.c.id.in_(ids[begin : begin + CHUNK]) & (_fires.c.state == "pending")
                        connection.execute(update(_fires).where(of_these).values(values))

    def close(self, token: int, fire_ids: Sequence[UUID], state: str, error: str | None = None) -> None:
        """
        End fires, at most 500, that will not run: `refused`, `missed` or `withdrawn`.

        Raises:
            StaleLeaderError: A newer leader has written; nothing was.
        """
        with self._engine.begin() as connection:
            self.prove(connection, token)
            _close(connection, fire_ids, state, error)

    def close_manual(self, fire_id: UUID, error: str) -> None:
        """End a manual fire that was refused."""
        with self._engine.begin() as connection:
            _close(connection, [fire_id], "refused", error)

    def pending(self, before: datetime, limit: int) -> list[Row[Any]]:
        """Return fires recorded before this that have no message yet, oldest first, with their schedules."""
        columns = [_fires, *(_schedules.c[n] for n in ("name", "task", "args", "priority", "misfire"))]
        gone = _schedules.c.id.is_(None) | _schedules.c.retired_at.is_not(None) | _schedules.c.paused_at.is_not(None)
        query = (
            select(*columns, gone.label("is_off"))
            .select_from(_fires.outerjoin(_schedules, _schedules.c.id == _fires.c.schedule_id))
            .where(_fires.c.state == "pending", _fires.c.recorded_at < before)
            .order_by(_fires.c.recorded_at)
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return list(connection.execute(query))

    def known_to_history(self, run_ids: Sequence[UUID]) -> set[UUID]:
        """Return which of these runs, at most 500, are in the history: their messages reached the broker."""
        query = select(_runs.c.id).where(_runs.c.id.in_([str(run_id) for run_id in run_ids]))
        with self._engine.begin() as connection:
            return {UUID(run_id) for run_id in connection.execute(query).scalars()}

    def published_ahead(self, schedule_ids: Iterable[UUID], now: datetime) -> list[UUID]:
        """Return the runs of these schedules that are enqueued but not due yet."""
        query = select(_fires.c.id).where(
            _fires.c.schedule_id.in_(list(schedule_ids)), _fires.c.state == "published", _fires.c.due_at > now
        )
        with self._engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def fire_states(self, run_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return the states of these fires, at most 500, by their run ids."""
        query = select(_fires.c.id, _fires.c.state).where(_fires.c.id.in_(run_ids))
        with self._engine.begin() as connection:
            return {row.id: row.state for row in connection.execute(query)}

    def unfinished_in_history(self, run_ids: Collection[UUID], now: datetime) -> set[UUID]:
        """
        Return which of these published runs, at most 500, have no final state in the history.

        A run that is not in the history counts as unfinished for an hour after it was recorded, as the history may lag.
        """
        states = select(_runs.c.id, _runs.c.state).where(_runs.c.id.in_([str(run_id) for run_id in run_ids]))
        fires = select(_fires.c.id, _fires.c.recorded_at).where(_fires.c.id.in_(run_ids))
        with self._engine.begin() as connection:
            known = {UUID(row.id): row.state for row in connection.execute(states)}
            recorded = {row.id: row.recorded_at for row in connection.execute(fires)}
        return {
            run_id
            for run_id, at in recorded.items()
            if (known[run_id] not in FINAL_STATES if run_id in known else now - at < UNKNOWN_RUN_LIMIT)
        }

    def prune(self, before: datetime, limit: int) -> int:
        """Delete up to `limit` settled fires recorded before this; return how many."""
        old = (
            select(_fires.c.id).where(_fires.c.recorded_at < before, _fires.c.state != "pending").limit(limit)
        ).scalar_subquery()
        with self._engine.begin() as connection:
            return connection.execute(delete(_fires).where(_fires.c.id.in_(old))).rowcount

    @staticmethod
    def prove(connection: Connection, token: int, changes: int | None = None) -> None:
        """
        Lock leader and change number until commit, so that takeovers and edits happen before or after us.

        Raises:
            StaleLeaderError: A newer leader has written.
            DefinitionsChangedError: Definitions have changed since change number `changes`.
        """
        query = select(_states.c.name, _states.c.value).order_by(_states.c.name).with_for_update()
        values: dict[str, int] = {row.name: row.value for row in connection.execute(query)}
        if values.get(LEADER, 0) > token:
            raise StaleLeaderError(f"token {token} is older than {values[LEADER]}")
        if changes is not None and values.get(CHANGES, 0) != changes:
            raise DefinitionsChangedError(f"change {changes} is older than {values.get(CHANGES, 0)}")


def next_change(connection: Connection) -> int:
    """Number a change of a definition; the row stays locked until commit, so numbers appear in order."""
    _ensure_states(connection)
    number: int = connection.execute(
        update(_states).where(_states.c.name == CHANGES).values(value=_states.c.value + 1).returning(_states.c.value)
    ).scalar_one()
    return number


def _close(connection: Connection, fire_ids: Sequence[UUID], state: str, error: str | None) -> None:
    """End fires; those whose message was never sent no longer count as fired."""
    ended = _fires.c.id.in_(fire_ids)
    unsent = select(_fires.c.schedule_id, func.count()).where(ended, _fires.c.state == "pending")
    for schedule_id, count in connection.execute(unsent.group_by(_fires.c.schedule_id)).all():
        numbers = {"fired": _schedules.c.fired - count}
        if state == "missed":
            numbers["missed"] = _schedules.c.missed + count
        connection.execute(update(_schedules).where(_schedules.c.id == schedule_id).values(numbers))
    connection.execute(update(_fires).where(ended).values(state=state, error=error and error[:1000]))


def _compare(connection: Connection, advances: Sequence[Advance]) -> None:
    for begin in range(0, len(advances), CHUNK):
        part = advances[begin : begin + CHUNK]
        rows = connection.execute(_CURSORS, {"ids": [advance.schedule_id for advance in part]})
        found = {row.id: row.cursor for row in rows}
        moved = sum(found.get(advance.schedule_id, advance.since) != advance.since for advance in part)
        if moved:
            raise CursorMovedError(f"{moved} schedules have advanced further than this process knew")


def _insert_new(connection: Connection) -> Any:
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(_fires).on_conflict_do_nothing().returning(_fires.c.id)


def _ensure_states(connection: Connection) -> None:
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    rows = [{"name": CHANGES, "value": 0, "holder": ""}, {"name": LEADER, "value": 0, "holder": ""}]
    connection.execute(dialect.insert(_states).values(rows).on_conflict_do_nothing())


def _advance_values(advance: Advance) -> dict[str, Any]:
    return {f"b_{field.name}": getattr(advance, field.name) for field in dataclasses.fields(advance)}


_NEEDED = (
    *("id", "name", "task", "args", "priority", "kind", "expression", "zone", "jitter_ms", "start_at", "end_at"),
    *("misfire", "misfire_limit", "overlap", "paused_at", "retired_at", "cursor", "last_run_id", "changes"),
)
_DEFINITIONS = select(*(_schedules.c[name] for name in _NEEDED)).where(_schedules.c.changes > bindparam("since"))
_CURSORS = select(_schedules.c.id, _schedules.c.cursor).where(_schedules.c.id.in_(bindparam("ids", expanding=True)))
_MOMENT = _schedules.c.cursor.type
_ADVANCE = (
    update(_schedules)
    .where(_schedules.c.id == bindparam("b_schedule_id"), _schedules.c.cursor == bindparam("b_since", type_=_MOMENT))
    .values(
        cursor=bindparam("b_cursor", type_=_MOMENT),
        last_slot=func.coalesce(bindparam("b_last_slot", type_=_MOMENT), _schedules.c.last_slot),
        last_run_id=func.coalesce(bindparam("b_last_run_id", type_=_schedules.c.id.type), _schedules.c.last_run_id),
        last_fired_at=func.coalesce(bindparam("b_fired_at", type_=_MOMENT), _schedules.c.last_fired_at),
        fired=_schedules.c.fired + bindparam("b_fired"),
        skipped=_schedules.c.skipped + bindparam("b_skipped"),
        missed=_schedules.c.missed + bindparam("b_missed"),
    )
)
