"""
Reduce events to rows of runs and attempts: a pure function with the same result for any order and any repetition.

Each event has a *rank*, a text that orders the events of one run by precedence:

1. a final event (succeeded, failed, cancelled) beats all others: a late start does not reopen a run;
2. then the higher attempt;
3. then, within an attempt: enqueued < started, snoozed, stalled (which can alternate) < retrying;
4. then the newer stream entry.

The event of the highest rank decides the state and its columns. Facts about the call come from the newest enqueue,
errors from the highest-ranked failure, first starts are minima, the number of attempts is a maximum: none depends on
the order. Progress changes nothing else; the newest report counts. The only sum, an attempt's snoozes, counts entries
newer than the last counted one, and needs the order of the stream.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from taskyard.history.events import LARGEST, MAX_ID, HistoryEvent
from taskyard.history.models import FINAL_STATES
from taskyard.history.writer.error_signatures import error_signature
from taskyard.history.writer.run_rows import AttemptRow, RunRow
from taskyard.history.writer.truncation import ARGS_BYTES, PROGRESS_BYTES, clean_json

ENQUEUES = frozenset(("queued", "scheduled"))
ERRORS = frozenset(("retrying", "failed", "cancelled"))
STATE_AFTER = {
    "queued": "queued",
    "scheduled": "scheduled",
    "started": "running",
    "retrying": "retrying",
    "snoozed": "scheduled",
    "stalled": "queued",  # taken back from a lost worker, it waits again
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
ATTEMPT_STATE_AFTER = {kind: kind for kind in ("retrying", "snoozed", "stalled", "succeeded", "failed")} | {
    "started": "running"
}
PHASES = {"queued": 0, "scheduled": 0, "retrying": 2}  # within an attempt; all others 1
EXECUTIONS_KEPT = 20  # starts and stalls of one attempt, the newest
UNKNOWN_TASK = ""  # task name of a run of which no event told it


@dataclass(slots=True)
class RunRecords:
    """Rows of runs and attempts by key, read before reducing and updated by it."""

    runs: dict[str, RunRow] = field(default_factory=dict)
    attempts: dict[tuple[str, int], AttemptRow] = field(default_factory=dict)


def reduce_events(records: RunRecords, events: Iterable[HistoryEvent]) -> None:
    """
    Update the rows with the events, adding missing rows.

    `records` must hold the existing runs of these events, and for each attempt also the previous and the next one.
    """
    touched: dict[str, RunRow] = {}
    for event in sorted(events, key=lambda event: event.id):
        run = records.runs.get(event.run_id)
        if run is None:
            run = records.runs[event.run_id] = _new_run(event)
        touched[event.run_id] = run
        _apply_to_run(run, event)
        if event.kind in ATTEMPT_STATE_AFTER:
            key = (event.run_id, event.attempt)
            attempt = records.attempts.get(key)
            if attempt is None:
                attempt = records.attempts[key] = _new_attempt(event)
            _apply_to_attempt(attempt, event)
    for run in touched.values():
        run.wait_ms = _span(max(_known(run.enqueued_at, run.scheduled_for), default=None), run.started_at)
    for (run_id, number), attempt in records.attempts.items():
        if run_id in touched:
            _derive(attempt, touched[run_id], records.attempts.get((run_id, number - 1)))


def rank(event: HistoryEvent) -> str:
    """Return the text that orders the events of one run; see the module docstring."""
    is_final = event.kind in FINAL_STATES
    return f"{is_final:d}.{event.attempt:010d}.{PHASES.get(event.kind, 1)}.{event.id}"


def _new_run(event: HistoryEvent) -> RunRow:
    return RunRow(id=event.run_id, task=UNKNOWN_TASK, queue=event.queue, state="", enqueued_at=event.at)


def _new_attempt(event: HistoryEvent) -> AttemptRow:
    return AttemptRow(run_id=event.run_id, number=event.attempt, state="")


def _apply_to_run(run: RunRow, event: HistoryEvent) -> None:
    if event.kind == "progress":
        if event.id > run.progress_event:
            run.progress_event = event.id
            run.progress = clean_json({**event.detail, "at": event.at.isoformat()}, PROGRESS_BYTES)
        return
    if event.kind in ENQUEUES:
        if event.id > run.queued_event:
            _take_facts(run, event)
    else:
        if not run.queued_event and run.enqueued_at is not None:
            run.enqueued_at = min(run.enqueued_at, event.at)  # the best estimate without the enqueue
        if event.kind != "cancelled":
            run.attempts = max(run.attempts, event.attempt)
    if event.kind == "started":
        run.started_at = min(_known(run.started_at, event.at))
        run.task = run.task or event.text("task") or UNKNOWN_TASK  # of a run whose sender did not record it
        run.args = run.args or _arguments(event)
    ranked = rank(event)
    if event.kind in ERRORS and ranked > run.error_event:
        run.error_event = ranked
        run.error_type, run.error_message = _error(event)
        run.error_signature = error_signature(run.error_type, run.error_message or "", event.traceback)
    if ranked > run.last_event:
        run.last_event = ranked
        run.state = STATE_AFTER[event.kind]
        run.queue = event.queue
        run.due_at = event.moment("eta") if event.kind == "scheduled" else event.after_delay()
        run.finished_at = event.at if event.kind in FINAL_STATES else None
        run.runtime_ms = event.runtime_ms
        run.result = event.result if event.kind == "succeeded" else None


def _take_facts(run: RunRow, event: HistoryEvent) -> None:
    run.queued_event = event.id
    run.enqueued_at = event.at
    run.scheduled_for = event.moment("eta")
    run.task = event.text("task") or run.task
    run.priority = int(min(max(event.number("priority") or 0, 0), 9)) if "priority" in event.detail else 5
    run.user_id = event.text("user_id")
    run.correlation_id = event.text("correlation_id")
    run.parent_id = event.text("parent_id", MAX_ID)
    run.root_id = event.text("root_id", MAX_ID)
    run.redrive_of = event.text("redrive_of", 36)
    run.args = _arguments(event) or run.args


def _arguments(event: HistoryEvent) -> Any:
    args = event.detail.get("args")  # text is the unmasked repr of a foreign Celery client
    return clean_json(args, ARGS_BYTES) if isinstance(args, dict) else None


def _apply_to_attempt(attempt: AttemptRow, event: HistoryEvent) -> None:
    if event.kind in {"started", "stalled"}:
        _note_execution(attempt, event)
    if event.kind == "started":
        attempt.started_at = min(_known(attempt.started_at, event.at))
        if event.id > attempt.started_event:
            attempt.started_event = event.id
            attempt.worker, attempt.pid = event.text("worker"), _pid(event)
    is_newest = event.kind == "stalled" and attempt.executions[-1]["event"] == event.id
    if is_newest and not attempt.started_event:  # it died before its start was written
        attempt.worker = event.text("worker")
    if event.kind == "snoozed" and event.id > attempt.last_snooze:
        attempt.last_snooze = event.id
        attempt.snoozes += 1
    ranked = rank(event)
    if ranked > attempt.last_event:
        attempt.last_event = ranked
        attempt.state = ATTEMPT_STATE_AFTER[event.kind]
        attempt.finished_at = None if event.kind == "started" else event.at
        attempt.next_try_at = event.after_delay()
        attempt.runtime_ms = event.runtime_ms
        attempt.error_type, attempt.error_message = _error(event) if event.kind in ERRORS else (None, None)
        attempt.traceback = event.traceback


def _note_execution(attempt: AttemptRow, event: HistoryEvent) -> None:
    """List starts and stalls once there is more than one start: a single one fits the columns."""
    noted = {entry["event"]: entry for entry in attempt.executions or ()}
    if not noted and attempt.started_event and attempt.started_at:
        only = (attempt.started_event, "started", attempt.started_at, attempt.worker, attempt.pid)
        noted[attempt.started_event] = _execution(*only)
    noted[event.id] = _execution(event.id, event.kind, event.at, event.text("worker"), _pid(event))
    if len(noted) > 1 or event.kind == "stalled":
        attempt.executions = [noted[key] for key in sorted(noted)[-EXECUTIONS_KEPT:]]


def _execution(event: str, kind: str, at: datetime, worker: str | None, pid: int | None) -> dict[str, Any]:
    return {"event": event, "kind": kind, "at": at.astimezone(UTC).isoformat(), "worker": worker, "pid": pid}


def _pid(event: HistoryEvent) -> int | None:
    pid = event.number("pid")
    return int(pid) if pid is not None and 0 <= pid <= LARGEST else None


def _derive(attempt: AttemptRow, run: RunRow, before: AttemptRow | None) -> None:
    """Set the columns that depend on several rows."""
    if attempt.number == 1:
        attempt.wait_ms = _span(max(_known(run.enqueued_at, run.scheduled_for), default=None), attempt.started_at)
    else:
        attempt.wait_ms = _span(before.next_try_at if before else None, attempt.started_at)
    has_no_outcome = attempt.last_event.endswith(attempt.started_event) and attempt.started_event
    if has_no_outcome:  # a cancelled run ends its last attempt; only here we know whether that had started
        is_cancelled = run.state == "cancelled" and attempt.number == run.attempts
        attempt.state = "cancelled" if is_cancelled else "running"
        attempt.finished_at = run.finished_at if is_cancelled else None


def _error(event: HistoryEvent) -> tuple[str, str | None]:
    if event.kind == "cancelled":
        return "Cancelled", ": ".join(filter(None, (event.text("by"), event.text("reason", 1024)))) or None
    return event.text("error") or "Error", event.error_message


def _known(*moments: datetime | None) -> list[datetime]:
    return [moment for moment in moments if moment is not None]


def _span(begin: datetime | None, end: datetime | None) -> int | None:
    """Return whole milliseconds; 0 if the clocks disagree."""
    if begin is None or end is None:
        return None
    return min(max((end - begin) // timedelta(milliseconds=1), 0), LARGEST)
