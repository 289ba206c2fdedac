"""Checks of `doctor` for what waits for a person: dead letters, failing schedules, messages that nobody reads."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError
from sqlalchemy import Engine, func
from sqlmodel import Session, col, select

from taskyard.beat.views import list_schedules
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.findings import Finding
from taskyard.gauges import age_seconds
from taskyard.history.models import DeadLetter

BURIAL_TIME = timedelta(minutes=2)  # a dead message has its row by then, if anything consumes the dead letters
MAX_EXAMINED = 500  # dead messages per queue
STOCK_PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # suffixes of stock kombu's lists, one per priority


def check_dead_letters(engine: Engine) -> Iterator[Finding]:
    """Report open dead letters."""
    query = select(func.count(), func.min(DeadLetter.failed_at)).where(DeadLetter.state == "open")
    with Session(engine) as session:
        count, oldest = session.exec(query).one()
    if not count:
        yield Finding("dead letters", "ok", "none open")
        return
    age = timedelta(seconds=int(age_seconds(oldest)))
    fix = "celery -A tasks dlq ls --group; then redrive or discard them"
    yield Finding("dead letters", "warning", f"{count} open, the oldest for {age}", fix)


def check_schedules(engine: Engine) -> Iterator[Finding]:
    """Report schedules whose last run failed or could not be enqueued."""
    with Session(engine) as session:
        views = [view for view in list_schedules(session) if view.state == "active"]
        failing = [view.schedule.name for view in views if view.last_outcome in {"failed", "refused"}]
    if failing:
        fix = f"celery -A tasks schedules show {failing[0]}"
        yield Finding("schedules", "warning", f"last run failed: {', '.join(failing)}", fix)
    else:
        yield Finding("schedules", "ok", f"{len(views)} active, none failing")


def check_dead_messages(control: QueueControl, engine: Engine, queues: Iterable[str]) -> Iterator[Finding]:
    """Report messages that are dead in the broker and have no dead letter in SQL."""
    before = datetime.now(UTC) - BURIAL_TIME
    lost: list[str] = []
    for queue in queues:
        peeked = control.peek(queue, "dead", MAX_EXAMINED)
        dead = {each.run_id for each in peeked if each.at is None or each.at < before}
        with Session(engine) as session:
            rows = session.exec(select(DeadLetter.run_id).where(col(DeadLetter.run_id).in_(dead))).all()
        lost += [f"{len(dead - set(rows))} in {queue}"] if dead - set(rows) else []
    if lost:
        fix = (
            "check that a worker consumes queue dead-letter, and its log; see: celery -A tasks queues peek --state dead"
        )
        yield Finding("dead messages", "fault", f"without a dead letter: {', '.join(lost)}", fix)
    else:
        yield Finding("dead messages", "ok", "each has its dead letter")


def check_stock_lists(client: Redis, queues: Iterable[str]) -> Iterator[Finding]:
    """Report messages that clients on stock kombu sent to lists named like our queues, which no worker reads."""
    found: list[str] = []
    for queue in queues:
        keys = [f"{queue}{suffix}" for suffix in STOCK_PRIORITIES]
        try:
            lengths: list[Any] = [client.llen(key) for key in keys if client.type(key) == b"list"]
        except NoPermissionError:  # a user of the platform's keys only
            yield Finding("stock messages", "ok", "not checked: this user sees the keys of the platform only")
            return
        found += [f"{sum(lengths)} for {queue}"] if sum(lengths) else []
    if found:
        fix = "configure the sender with Taskyard's transport, see docs/broker.md, and send these again"
        yield Finding("stock messages", "fault", f"sent with stock kombu, never read: {', '.join(found)}", fix)
    else:
        yield Finding("stock messages", "ok", "none sent with stock kombu")
