"""Runs that the records call unfinished, and whose messages the broker does not have: it was emptied, or lost data."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from redis import Redis, ResponseError
from sqlmodel import Session, col, select

from taskyard.broker.admin.message_lookup import find_live_runs
from taskyard.broker.protocol.outcomes import detail
from taskyard.broker.scripts.runner import Keyspace, ScriptCall, run_scripts
from taskyard.database.paging import LONGEST_PAGE
from taskyard.history.events import stream_key
from taskyard.history.models import FINAL_STATES, STATES, Run
from taskyard.history.queries.runs import RunFilter, list_runs

UNFINISHED = tuple(state for state in STATES if state not in FINAL_STATES)
PATIENCE = timedelta(seconds=10)
LOOK_EVERY = 0.05  # seconds
CLOSED_AT_ONCE = 100  # events per round trip


class AuditBehindError(Exception):
    """Events are not in SQL yet, so nobody can tell which runs are unfinished."""


class LostRuns:
    """Compares the records with the broker; in stock kombu messages cannot be looked up, so that is not for it."""

    def __init__(
        self, open_one: Callable[[], Session], client: Redis, prefix: str, patience: timedelta = PATIENCE
    ) -> None:
        """`patience` is how long the writer of the audit is waited for."""
        self._open, self._client, self._prefix, self._patience = open_one, client, prefix, patience

    def find(self, wanted: RunFilter, *, pages: int | None = None) -> Iterator[Run]:
        """
        Yield the lost runs that a filter means, the newest of each state first.

        Args:
            wanted: Which runs; a state that is final means none.
            pages: How many pages of each state are looked at; None: all.

        Raises:
            AuditBehindError: The writer did not keep up, or none runs.
            RedisError: The broker does not answer.
        """
        for state in UNFINISHED:
            if wanted.state in {None, state}:
                yield from self._find_in(replace(wanted, state=state), pages)

    def close(self, runs: Sequence[Run], *, by: str, reason: str) -> None:
        """
        Let the records say that these runs are cancelled.

        Raises:
            RedisError: The broker does not answer; some may be closed.
        """
        facts = detail(by=by, reason=reason)
        space = Keyspace(self._prefix, writes_events=True)
        for begin in range(0, len(runs), CLOSED_AT_ONCE):
            part = runs[begin : begin + CLOSED_AT_ONCE]
            calls = [
                ScriptCall("note", ("cancelled", run.id, run.queue, max(run.attempts, 1), facts, "", ""))
                for run in part
            ]
            run_scripts(self._client, space, calls)

    def _find_in(self, wanted: RunFilter, pages: int | None) -> Iterator[Run]:
        after: str | None = None
        while pages is None or pages > 0:
            with self._open() as session:
                page = list_runs(session, wanted, limit=LONGEST_PAGE, after=after)
            yield from self._lost_of([run.id for run in page.rows])
            after, pages = page.after, pages and pages - 1
            if after is None:
                return

    def _lost_of(self, run_ids: Sequence[str]) -> Sequence[Run]:
        missing = set(run_ids) - find_live_runs(self._client, self._prefix, run_ids)
        if not missing:
            return ()
        self._wait_until_written()  # what made a message go is in the stream, written by the same script
        with self._open() as session:
            still = (col(Run.id).in_(missing), col(Run.state).in_(UNFINISHED))
            rows = session.exec(select(Run).where(*still).order_by(col(Run.enqueued_at).desc())).all()
        back = find_live_runs(self._client, self._prefix, [run.id for run in rows])  # sent again meanwhile
        return [run for run in rows if run.id not in back]

    def _wait_until_written(self) -> None:
        connection: Any = self._client
        stream = stream_key(self._prefix)
        try:
            newest = _number(connection.xinfo_stream(stream)["last-generated-id"])
        except ResponseError:  # there is no stream
            return
        deadline = time.monotonic() + self._patience.total_seconds()
        while oldest := connection.xrange(stream, count=1):
            if _number(oldest[0][0]) > newest:
                return
            if time.monotonic() > deadline:
                raise AuditBehindError(f"{connection.xlen(stream)} events are not in SQL yet; does a writer run?")
            time.sleep(LOOK_EVERY)  # the writer, in another process, tells nobody how far it is


def _number(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
