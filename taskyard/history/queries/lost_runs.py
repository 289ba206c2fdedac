"""Lost runs: unfinished on record, but without a message in the broker, which was flushed or lost data."""

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
POLL_INTERVAL = 0.05  # seconds
EVENTS_PER_CALL = 100  # events per round trip


class HistoryBehindError(Exception):
    """Events are still waiting to be written to SQL, so nobody can tell which runs are unfinished."""


class LostRuns:
    """Compares the records with the broker; not for the stock transport, which cannot look a message up."""

    def __init__(
        self, open_one: Callable[[], Session], client: Redis, prefix: str, patience: timedelta = PATIENCE
    ) -> None:
        """`patience` is how long to wait for the history writer to catch up."""
        self._open, self._client, self._prefix, self._patience = open_one, client, prefix, patience

    def find(self, wanted: RunFilter, *, pages: int | None = None) -> Iterator[Run]:
        """
        Yield matching lost runs, newest of each state first.

        Args:
            wanted: Which runs; a final state matches none.
            pages: How many pages of each state to check; None: all.

        Raises:
            HistoryBehindError: The writer is behind, or none is running.
            RedisError: The broker does not answer.
        """
        for state in UNFINISHED:
            if wanted.state in {None, state}:
                yield from self._find_in(replace(wanted, state=state), pages)

    def close(self, runs: Sequence[Run], *, by: str, reason: str) -> None:
        """
        Mark lost runs cancelled.

        Raises:
            RedisError: The broker does not answer; some may already be marked.
        """
        facts = detail(by=by, reason=reason)
        space = Keyspace(self._prefix, writes_events=True)
        for begin in range(0, len(runs), EVENTS_PER_CALL):
            part = runs[begin : begin + EVENTS_PER_CALL]
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
        self._wait_until_written()  # the script that removed a message also appended its event
        with self._open() as session:
            still = (col(Run.id).in_(missing), col(Run.state).in_(UNFINISHED))
            rows = session.exec(select(Run).where(*still).order_by(col(Run.enqueued_at).desc())).all()
        back = find_live_runs(self._client, self._prefix, [run.id for run in rows])  # redriven or sent again meanwhile
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
                raise HistoryBehindError(f"{connection.xlen(stream)} events are not in SQL yet; is a worker running?")
            time.sleep(POLL_INTERVAL)  # the writer is another process, with no way to notify us


def _number(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
