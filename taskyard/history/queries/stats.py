"""Numbers about runs that ended in a span of time: how many, how well, how fast; from SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Integer, case, cast, literal
from sqlalchemy import func as sql
from sqlmodel import Session, col, select

from taskyard.history.models import FINAL_STATES, Run

type By = Literal["task", "queue", "both"]

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Spread:
    """Nearest-rank percentiles, in milliseconds; None: nothing was measured."""

    p50: int | None
    p95: int | None
    p99: int | None
    longest: int | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The runs of one task, one queue, or one task in one queue."""

    task: str | None  # None: all tasks of the queue
    queue: str | None  # None: all queues of the task
    ended: int
    succeeded: int
    failed: int
    cancelled: int
    retried: int  # needed more than one attempt
    per_minute: float  # runs that ended
    wait: Spread  # from enqueued, or due, to the first start
    runtime: Spread  # of the last attempt

    @property
    def success_rate(self) -> float | None:
        """Succeeded among those that succeeded or failed, 0-1; None: neither happened."""
        decided = self.succeeded + self.failed
        return self.succeeded / decided if decided else None


def stats(session: Session, since: datetime, until: datetime, by: By = "both") -> list[Stats]:
    """Return the numbers of all runs that ended from `since` to before `until`, the busiest group first."""
    groups: list[Any] = [col(Run.task)] * (by != "queue") + [col(Run.queue)] * (by != "task")
    ended = [col(Run.finished_at) >= since, col(Run.finished_at) < until, col(Run.state).in_(FINAL_STATES)]
    counted = select(  # type: ignore[call-overload]  # SQLModel types four columns at most
        *groups,
        sql.count(),
        *(_how_many(col(Run.state) == state) for state in FINAL_STATES),
        _how_many(col(Run.attempts) > 1),
    )
    waits, runtimes = (_spreads(session, column, groups, ended) for column in (col(Run.wait_ms), col(Run.runtime_ms)))
    minutes = max((until - since) / timedelta(minutes=1), 1 / 60)
    found = []
    for row in session.exec(counted.where(*ended).group_by(*groups)).all():
        group, (count, succeeded, failed, cancelled, retried) = tuple(row[: len(groups)]), row[len(groups) :]
        task, queue = (None if by == "queue" else group[0]), (None if by == "task" else group[-1])
        outcomes = (count, succeeded, failed, cancelled, retried, round(count / minutes, 3))
        found.append(Stats(task, queue, *outcomes, waits.get(group, _NOTHING), runtimes.get(group, _NOTHING)))
    return sorted(found, key=lambda each: (-each.ended, each.task or "", each.queue or ""))


def _how_many(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(sql.coalesce(sql.sum(case((condition, 1), else_=0)), 0), Integer)


def _spreads(
    session: Session, column: Any, groups: Sequence[Any], ended: Sequence[ColumnElement[bool]]
) -> dict[tuple[Any, ...], Spread]:
    """Return the spreads of a column by group; SQLite has no percentile function, both have this window."""
    share = sql.cume_dist().over(partition_by=groups, order_by=column)
    ranked = (
        select(
            *(each.label(f"group_{i}") for i, each in enumerate(groups)), column.label("value"), share.label("share")
        )  # type: ignore[call-overload]  # as above
        .where(*ended, column.is_not(None))
        .subquery()
    )
    keys = [ranked.c[f"group_{i}"] for i in range(len(groups))]
    values = [sql.min(case((ranked.c.share >= literal(part), ranked.c.value))) for part in SHARES.values()]
    query: Any = select(*keys, *values, sql.max(ranked.c.value)).group_by(*keys)  # type: ignore[call-overload]  # as above
    return {tuple(row[: len(keys)]): Spread(*row[len(keys) :]) for row in session.exec(query).all()}


_NOTHING = Spread(None, None, None, None)
