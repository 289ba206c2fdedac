"""Statistics of the runs that ended in a period: counts, success rate, wait and run times."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Integer, case, cast, literal
from sqlalchemy import func as sql
from sqlmodel import Session, col, select

from taskyard.history.models import FINAL_STATES, Run

type GroupBy = Literal["task", "queue", "both"]

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles, in milliseconds; None: no measurements."""

    p50: int | None
    p95: int | None
    p99: int | None
    longest: int | None


@dataclass(frozen=True, slots=True)
class RunStats:
    """The runs of one task, one queue, or one task in one queue."""

    task: str | None  # None: all tasks of the queue
    queue: str | None  # None: all queues of the task
    ended: int
    succeeded: int
    failed: int
    cancelled: int
    retried: int  # took more than one attempt
    per_minute: float  # runs that ended
    wait: Percentiles  # from enqueued, or due, to the first start
    runtime: Percentiles  # of the last attempt

    @property
    def success_rate(self) -> float | None:
        """Share of succeeded among succeeded and failed runs, 0-1; None: there are none."""
        decided = self.succeeded + self.failed
        return self.succeeded / decided if decided else None


def stats(session: Session, since: datetime, until: datetime, by: GroupBy = "both") -> list[RunStats]:
    """Return statistics of runs that ended in [since, until), busiest group first."""
    groups: list[Any] = [col(Run.task)] * (by != "queue") + [col(Run.queue)] * (by != "task")
    ended = [col(Run.finished_at) >= since, col(Run.finished_at) < until, col(Run.state).in_(FINAL_STATES)]
    counted = select(  # type: ignore[call-overload]  # SQLModel types four columns at most
        *groups,
        sql.count(),
        *(_how_many(col(Run.state) == state) for state in FINAL_STATES),
        _how_many(col(Run.attempts) > 1),
    )
    waits, runtimes = (
        _percentiles(session, column, groups, ended) for column in (col(Run.wait_ms), col(Run.runtime_ms))
    )
    minutes = max((until - since) / timedelta(minutes=1), 1 / 60)
    found = []
    for row in session.exec(counted.where(*ended).group_by(*groups)).all():
        group, (count, succeeded, failed, cancelled, retried) = tuple(row[: len(groups)]), row[len(groups) :]
        task, queue = (None if by == "queue" else group[0]), (None if by == "task" else group[-1])
        outcomes = (count, succeeded, failed, cancelled, retried, round(count / minutes, 3))
        found.append(RunStats(task, queue, *outcomes, waits.get(group, _NOTHING), runtimes.get(group, _NOTHING)))
    return sorted(found, key=lambda each: (-each.ended, each.task or "", each.queue or ""))


def _how_many(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(sql.coalesce(sql.sum(case((condition, 1), else_=0)), 0), Integer)


def _percentiles(
    session: Session, column: Any, groups: Sequence[Any], ended: Sequence[ColumnElement[bool]]
) -> dict[tuple[Any, ...], Percentiles]:
    """Return percentiles of a column by group, with a window function: SQLite has no percentile function."""
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
    return {tuple(row[: len(keys)]): Percentiles(*row[len(keys) :]) for row in session.exec(query).all()}


_NOTHING = Percentiles(None, None, None, None)
