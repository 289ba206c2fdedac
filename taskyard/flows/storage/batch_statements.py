"""Statements about many steps at once: write all that changed, begin all that were asked for, insert all of a flow."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Row, Table, bindparam, exists, func, insert, or_, text, update
from sqlalchemy.orm import Session
from sqlmodel import col

from taskyard.broker.protocol.json_codec import dump
from taskyard.flows.models import FlowRow, StepRow
from taskyard.flows.states import RUNNABLE
from taskyard.flows.step_ref import StepRef

STEPS: Table = StepRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table models

PROGRESS = (
    "state", "generation", "run_id", "waits_for", "next_member", "is_counted", "attempts", "polls", "result", "error",
    "deadline_at", "check_at", "started_at", "finished_at",
)  # fmt: skip
CONTENT = ("payload", "options")  # they change seldom, and may be large
progress_of = attrgetter(*PROGRESS)
content_of = attrgetter(*CONTENT)


class Begin(NamedTuple):
    """A message asks to run a step."""

    ref: StepRef
    run_id: str
    attempt: int


def write_steps(session: Session, steps: Sequence[StepRow], columns: Sequence[str]) -> None:
    """Write these columns of steps of one flow with one statement; SQLite, which has no round trips, takes one each."""
    if not steps:
        return
    rows = [_facts(step, columns) for step in steps]
    if _is_postgresql(session):
        changes = ", ".join(f"{name} = changed.{name}" for name in columns)
        session.execute(
            text(
                f"UPDATE {STEPS.fullname} AS step SET {changes} "  # noqa: S608 - names of ours
                f"FROM json_populate_recordset(NULL::{STEPS.fullname}, CAST(:rows AS json)) AS changed "
                "WHERE step.flow_id = changed.flow_id AND step.seq = changed.seq"
            ),
            {"rows": dump(rows)},
        )
        return
    this_one = (STEPS.c.flow_id == bindparam("of_flow"), STEPS.c.seq == bindparam("at_seq"))
    statement = update(STEPS).where(*this_one).values({name: bindparam(name) for name in columns})
    for row in rows:
        row["of_flow"], row["at_seq"] = row.pop("flow_id"), row.pop("seq")
    session.connection().execute(statement, rows)


def insert_rows(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns."""
    if not rows:
        return
    if not _is_postgresql(session):
        session.connection().execute(insert(table), list(rows))
        return
    listed = ", ".join(rows[0])
    source = f"json_populate_recordset(NULL::{table.fullname}, CAST(:rows AS json))"
    statement = f"INSERT INTO {table.fullname} ({listed}) SELECT {listed} FROM {source}"  # noqa: S608 - names of ours
    session.execute(text(statement), {"rows": dump(rows)})


def begin_steps(session: Session, asked: Iterable[Begin], now: datetime) -> dict[StepRef, Row[Any]]:
    """
    Mark as running those of these steps that their messages may run; return their rows.

    Steps are locked in the order of their keys, as everywhere, so that no two transactions wait for each other.
    """
    wanted = {begin.ref: begin for begin in sorted(asked)}  # of several messages for one release, any
    if _is_postgresql(session):
        found: Iterable[Row[Any]] = session.execute(_begin_all(), {"now": now, "asked": dump(_as_objects(wanted))})
    else:
        found = [row for begin in wanted.values() for row in session.execute(_begin_one(begin, now))]
    return {StepRef(row.flow_id, row.seq, row.generation): row for row in found}


def _begin_all() -> Any:
    states = ", ".join(f"'{state}'" for state in RUNNABLE)
    flows = FlowRow.__table__.fullname  # type: ignore[attr-defined]  # as above
    return text(
        f"""
        WITH asked AS (
            SELECT asked.* FROM json_to_recordset(CAST(:asked AS json))
            AS asked(flow_id uuid, seq integer, generation integer, run_id text, attempt integer),
            set_config('synchronous_commit', 'off', true)  -- of this transaction: a lost start is found by its lease
        ), held AS (
            SELECT step.flow_id, step.seq FROM {STEPS.fullname} AS step
            JOIN asked ON step.flow_id = asked.flow_id AND step.seq = asked.seq
            WHERE step.generation = asked.generation AND step.state IN ({states})
            AND (step.role <> 'step'
                 OR EXISTS (SELECT FROM {flows} AS flow WHERE flow.id = step.flow_id AND flow.state = 'running'))
            ORDER BY step.flow_id, step.seq FOR UPDATE OF step
        )
        UPDATE {STEPS.fullname} AS step
        SET state = 'running', run_id = asked.run_id, attempts = asked.attempt,
            started_at = coalesce(step.started_at, :now)
        FROM asked JOIN held ON held.flow_id = asked.flow_id AND held.seq = asked.seq
        WHERE step.flow_id = asked.flow_id AND step.seq = asked.seq
        RETURNING step.flow_id, step.seq, step.generation, step.name, step.started_at, step.polls, step.options
        """  # noqa: S608 - names and states of ours
    ).columns(*(STEPS.c[name] for name in ("flow_id", "seq", "generation", "name", "started_at", "polls", "options")))


def _begin_one(begin: Begin, now: datetime) -> Any:
    ref = begin.ref
    wants_it = exists().where(
        col(FlowRow.id) == ref.flow_id, or_(col(FlowRow.state) == "running", col(StepRow.role) != "step")
    )
    statement = update(STEPS).where(
        STEPS.c.flow_id == ref.flow_id,
        STEPS.c.seq == ref.seq,
        STEPS.c.generation == ref.generation,
        STEPS.c.state.in_(RUNNABLE),
        wants_it,
    )
    started = func.coalesce(STEPS.c.started_at, now)
    values = {"state": "running", "run_id": begin.run_id, "attempts": begin.attempt, "started_at": started}
    names = ("flow_id", "seq", "generation", "name", "started_at", "polls", "options")
    return statement.values(values).returning(*(STEPS.c[name] for name in names))


def _as_objects(wanted: Mapping[StepRef, Begin]) -> list[dict[str, Any]]:
    return [{**ref._asdict(), "run_id": begin.run_id, "attempt": begin.attempt} for ref, begin in wanted.items()]


def _facts(step: StepRow, columns: Sequence[str]) -> dict[str, Any]:
    facts = {name: getattr(step, name) for name in columns}
    return {"flow_id": step.flow_id, "seq": step.seq, **facts}


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"
