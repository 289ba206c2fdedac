"""The reducer: the same rows, however often and in whichever order the events come."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskyard.history.events import HistoryEvent, padded
from taskyard.history.writer.bulk_tables import ATTEMPTS, RUNS
from taskyard.history.writer.reducer import RunRecords, reduce_events
from tests.history.event_streams import DETAILS

BEGIN = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
WORKERS = ("celery@a", "celery@b")


def event(
    kind: str, place: int, attempt: int = 1, *, after_ms: int | None = None, run_id: str = "r", **facts: Any
) -> HistoryEvent:
    """The event at a place of the stream, by default as many milliseconds after the begin."""
    at = BEGIN + timedelta(milliseconds=place if after_ms is None else after_ms)
    return HistoryEvent(padded(f"1790000000000-{place}"), kind, run_id, "celery", attempt, at, DETAILS[kind] | facts)


def reduced(*batches: Sequence[HistoryEvent]) -> RunRecords:
    records = RunRecords()
    for batch in batches:
        reduce_events(records, batch)
    return records


def test_a_run_that_is_retried_and_succeeds_has_two_attempts_with_their_times() -> None:
    records = reduced(
        [
            event("queued", 1, after_ms=0),
            event("started", 2, after_ms=100),
            event("retrying", 3, after_ms=600),
            event("started", 4, 2, after_ms=2700),
            event("succeeded", 5, 2, after_ms=2950),
        ]
    )

    run, first, second = records.runs["r"], records.attempts["r", 1], records.attempts["r", 2]
    assert (run.task, run.state, run.attempts, run.wait_ms, run.runtime_ms) == (
        "records.greet",
        "succeeded",
        2,
        100,
        250,
    )
    assert (run.args, run.result) == ({"name": "Ada", "token": "***"}, '"hello Ada"')
    assert (run.error_type, run.error_message) == ("TimeoutError", "after 3 s"), "the last failure stays visible"
    assert (first.state, first.runtime_ms, first.next_try_at) == ("retrying", 500, BEGIN + timedelta(milliseconds=2600))
    assert (second.state, second.wait_ms, second.worker, second.pid) == ("succeeded", 100, "celery@host", 4711)


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (["queued"], "queued"),
        (["scheduled"], "scheduled"),
        (["queued", "started"], "running"),
        (["queued", "started", "retrying"], "retrying"),
        (["queued", "started", "snoozed"], "scheduled"),
        (["queued", "started", "snoozed", "started"], "running"),
        (["queued", "started", "stalled"], "queued"),
        (["queued", "started", "stalled", "started"], "running"),
        (["queued", "started", "succeeded"], "succeeded"),
        (["queued", "started", "failed"], "failed"),
        (["queued", "failed"], "failed"),  # malformed: never started
        (["queued", "cancelled"], "cancelled"),
        (["queued", "started", "cancelled"], "cancelled"),
        (["queued", "succeeded", "started"], "succeeded"),  # a start that is told late
        (["queued", "retrying", "started"], "retrying"),  # as above
    ],
)
def test_the_state_follows_from_the_event_that_decides(kinds: list[str], state: str) -> None:
    records = reduced([event(kind, place) for place, kind in enumerate(kinds)])

    assert records.runs["r"].state == state


def test_a_cancelled_run_that_had_started_ends_its_attempt_and_one_that_had_not_has_none() -> None:
    started = reduced([event("queued", 1), event("started", 2), event("cancelled", 3)])
    waiting = reduced([event("queued", 1), event("cancelled", 2)])

    assert started.attempts["r", 1].state == "cancelled"
    assert started.attempts["r", 1].finished_at == started.runs["r"].finished_at
    assert waiting.attempts == {}


def test_snoozes_are_counted_and_use_no_attempt() -> None:
    records = reduced([event("queued", 1), *(event("snoozed", place) for place in (2, 3, 4))])

    assert records.attempts["r", 1].snoozes == 3
    assert records.runs["r"].attempts == 1


def test_a_delayed_run_waits_from_its_due_time() -> None:
    due = BEGIN + timedelta(hours=1)
    records = reduced([event("scheduled", 1, eta=due.isoformat()), event("started", 2, after_ms=3_600_250)])

    assert records.runs["r"].wait_ms == records.attempts["r", 1].wait_ms == 250


def test_arguments_that_nobody_masked_are_not_kept() -> None:
    """A foreign Celery client sends the repr of the arguments, secrets included."""
    records = reduced([event("queued", 1, args="{'token': 'hunter2'}")])

    assert records.runs["r"].args is None


@st.composite
def histories(draw: st.DrawFn) -> list[HistoryEvent]:
    """Events of two runs, in any order that a stream could have them, sensible or not."""
    size = draw(st.integers(1, 14))
    return [
        event(
            draw(st.sampled_from(sorted(DETAILS))),
            place,
            draw(st.integers(1, 3)),
            run_id=draw(st.sampled_from(("r", "s"))),
            worker=draw(st.sampled_from(WORKERS)),
        )
        for place in range(size)
    ]


@given(data=st.data(), history=histories())
@settings(max_examples=100, deadline=None)
def test_duplicates_and_another_order_in_one_batch_change_nothing(
    data: st.DataObject, history: list[HistoryEvent]
) -> None:
    twice = history + data.draw(st.lists(st.sampled_from(history), max_size=10))

    assert rows(reduced(data.draw(st.permutations(twice)))) == rows(reduced(history))


@given(data=st.data(), history=histories())
@settings(max_examples=100, deadline=None)
def test_batches_in_the_streams_order_with_redeliveries_change_nothing(
    data: st.DataObject, history: list[HistoryEvent]
) -> None:
    """What a crash between commit and acknowledgement does: a batch comes again, alone or with later entries."""
    batches: list[list[HistoryEvent]] = []
    end = 0
    while end < len(history):
        begin = data.draw(st.integers(max(0, end - 5), end))
        end = data.draw(st.integers(end + 1, len(history)))
        batches.append(history[begin:end])

    assert rows(reduced(*batches)) == rows(reduced(history))


@given(data=st.data(), history=histories())
@settings(max_examples=100, deadline=None)
def test_single_events_in_any_order_change_nothing_but_the_count_of_snoozes(
    data: st.DataObject, history: list[HistoryEvent]
) -> None:
    """The stream never does this; it shows that no value but the one sum leans on its order."""
    shuffled = data.draw(st.permutations(history))

    assert rows(reduced(*([each] for each in shuffled)), with_sums=False) == rows(reduced(history), with_sums=False)


@given(history=histories())
@settings(max_examples=100, deadline=None)
def test_attempts_and_snoozes_never_shrink(history: list[HistoryEvent]) -> None:
    records = RunRecords()
    for place, each in enumerate(history):
        before = {key: (row.snoozes, records.runs[key[0]].attempts) for key, row in records.attempts.items()}
        reduce_events(records, history[max(0, place - 2) : place + 1])
        for key, (snoozes, attempts) in before.items():
            assert records.attempts[key].snoozes >= snoozes
            assert records.runs[key[0]].attempts >= attempts
        assert each.run_id in records.runs


def rows(records: RunRecords, *, with_sums: bool = True) -> list[dict[str, Any]]:
    found = [dict(zip(RUNS.names, RUNS.values_of(row), strict=True)) for _, row in sorted(records.runs.items())]
    attempts = sorted(records.attempts.items())
    found += [dict(zip(ATTEMPTS.names, ATTEMPTS.values_of(row), strict=True)) for _, row in attempts]
    if not with_sums:
        for row in found:
            row.pop("snoozes", None)
            row.pop("last_snooze", None)
    return found
